"""Training of binarized networks: the update rules and the loop. The only room that needs torch throughout."""

from bnnverify.training.config import TrainingConfig
from bnnverify.training.export import export
from bnnverify.training.loop import TrainedModel, train

__all__ = ["TrainedModel", "TrainingConfig", "export", "train"]
