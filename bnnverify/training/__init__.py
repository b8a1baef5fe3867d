"""Training of binarized networks: the update rules and the loop. The only room that needs torch throughout."""
