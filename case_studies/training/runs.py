"""Trains the rows of settings.py, each seed in a process of its own with one thread.

Finished runs are appended to the results file and not run again. Ctrl-C keeps them, and the others go on from their
checkpoints next time, with the same bits as without the break; a second Ctrl-C stops at once.

    python case_studies/training/runs.py [--only NAME ...] [--seeds N] [--jobs 2] [--data-dir data]
    python case_studies/training/runs.py --data digits --epochs 2 --results trial.jsonl    (a trial)
    python case_studies/training/runs.py --list
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from records import Record, append, failure, identity, read, record, results_file, study_options
from settings import ROWS
from tqdm import tqdm

from bnnverify.datasets import Dataset, load
from bnnverify.errors import BnnVerifyError, QueryError
from bnnverify.formats import native
from bnnverify.processes import ends_with_parent
from bnnverify.training import TrainingConfig, export, train

OUT = Path("build/training")

Told = Callable[["Run", str, Any], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One row with one seed.

    Attributes:
        name: Of the row.
        config: As plain values, to be sent to another process.
        data: Name of the data set.
        id: See `records.identity`.
    """

    name: str
    config: dict[str, Any]
    data: str
    id: str

    @property
    def stem(self) -> str:
        """For the names of its files."""
        return f"{self.name}-seed{self.config['seed']}-{self.id[:8]}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run finds its images and puts its files.

    Attributes:
        out: Folder of networks and checkpoints.
        data_dir: Folder of the image files, or None for the default.
        device: Where torch computes.
    """

    out: Path
    data_dir: Path | None = None
    device: str = "cpu"


def perform(run: Run, dataset: Dataset, place: Place, seen: Callable[[dict[str, Any]], None]) -> Record | None:
    """Trains, exports and saves one network; its record, or None if it was interrupted.

    A run that the training refuses (a dead network) gives a record that says why: it would be refused again.

    Raises:
        EngineError: The exported network is not the trained one.
    """
    checkpoint = place.out / f"{run.stem}.checkpoint"
    config = TrainingConfig.from_json(run.config)
    try:
        trained = train(
            config,
            dataset,
            device=place.device,
            threads=1,
            progress=False,
            metrics=seen,
            checkpoint=checkpoint,
            resume=True,
        )
    except KeyboardInterrupt:
        return None
    except QueryError as error:
        checkpoint.unlink(missing_ok=True)
        return failure(run.name, config, dataset.provenance, str(error))
    if trained.interrupted:
        return None
    network = export(trained)
    native.save(network, place.out / f"{run.stem}.npz")
    checkpoint.unlink(missing_ok=True)
    return record(run.name, trained, network, file=f"{run.stem}.npz")


def _work(pipe: Connection, run: Run, place: Place) -> None:
    """What a process does: epochs, then the record, go down the pipe."""
    ends_with_parent()
    with contextlib.suppress(AttributeError, PermissionError):
        os.setpgid(0, 0)  # Ctrl-C in the terminal reaches the parent alone, which passes it on once
    try:
        dataset = load(run.data, directory=place.data_dir)
        pipe.send(("record", perform(run, dataset, place, lambda line: pipe.send(("epoch", line)))))
    except KeyboardInterrupt:
        pipe.send(("record", None))
    except BnnVerifyError as error:
        pipe.send(("broken", str(error)))
    finally:
        pipe.close()


def in_processes(pending: Sequence[Run], place: Place, jobs: int, told: Told) -> bool:
    """Performs the runs, `jobs` at a time; False if Ctrl-C ended it.

    Args:
        pending: The runs.
        place: Where.
        jobs: Number of processes.
        told: Gets the run and ``epoch`` with the metrics of one, ``record`` with the record or None, or ``broken``
            with the reason.
    """
    context = get_context("spawn")
    queue, active = deque(pending), dict[Any, tuple[Run, BaseProcess]]()
    interrupts = 0
    while queue or active:
        try:
            while queue and len(active) < jobs:
                pipe, end = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(end, queue[0], place), daemon=True)
                process.start()
                end.close()
                active[pipe] = queue.popleft(), process
            for pipe in wait(list(active)):
                run, process = active[pipe]
                try:
                    kind, value = pipe.recv()
                except EOFError:
                    kind, value = "broken", "the process ended without a word"
                if kind != "epoch":
                    del active[pipe]
                    process.join()
                told(run, kind, value)
        except KeyboardInterrupt:
            interrupts += 1
            queue.clear()
            for _, process in active.values():
                if interrupts == 1:
                    os.kill(process.pid or 0, signal.SIGINT)
                else:
                    process.kill()
    return not interrupts


def in_this_process(pending: Sequence[Run], place: Place, told: Told) -> bool:
    """Performs the runs one after the other; False if Ctrl-C ended it."""
    loaded: dict[str, Dataset] = {}
    for run in pending:
        if run.data not in loaded:
            loaded[run.data] = load(run.data, directory=place.data_dir)
        line = perform(run, loaded[run.data], place, lambda line, run=run: told(run, "epoch", line))
        told(run, "record", line)
        if line is None:
            return False
    return True


def planned(
    names: Sequence[str], *, seeds: int | None, data: str | None, epochs: int | None, data_dir: Path | None
) -> list[Run]:
    """The runs of these rows; first seeds first, so that a study that is broken off has something of every row.

    Args:
        names: Of the rows.
        seeds: Number of seeds, from 0 up, in place of the rows' own.
        data: Data set in place of the rows' own.
        epochs: In place of the rows' own.
        data_dir: Folder of the image files.
    """
    provenance: dict[str, Any] = {}
    runs = []
    for name in names:
        row = ROWS[name]
        where = data or row.data
        if where not in provenance:
            provenance[where] = load(where, directory=data_dir).provenance
        for place, seed in enumerate(row.seeds if seeds is None else range(seeds)):
            config = row.config(seed, epochs=epochs)
            runs.append((place, Run(name, config.as_json(), where, identity(config, provenance[where]))))
    return [run for _, run in sorted(runs, key=lambda pair: pair[0])]


def main(words: Sequence[str] | None = None) -> int:
    """Performs what is asked for and not yet done; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="NAME", help="these rows alone; see --list")
    parser.add_argument("--section", choices=("numbers", "claims"), help="the rows of this section alone")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 in place of each row's own")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes; 0: in this one. Default: 2")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the image files are; default: data")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"networks, checkpoints; default: {OUT}")
    parser.add_argument("--device", default="cpu", help="where torch computes; default: cpu")
    parser.add_argument("--force", action="store_true", help="run again what is finished")
    parser.add_argument("--list", action="store_true", help="print names and configs of the rows and stop")
    study_options(parser)
    arguments = parser.parse_args(words)
    names = [
        name for name in arguments.only or ROWS if arguments.section is None or ROWS[name].section == arguments.section
    ]
    if arguments.list:
        for name in names:
            print(f"{name:18} {len(ROWS[name].seeds)} seeds  {ROWS[name].config(0, epochs=arguments.epochs)}")
        return 0
    try:
        return _perform_all(arguments, names)
    except BnnVerifyError as error:
        print(f"runs.py: {error}", file=sys.stderr)
        return 2


def _perform_all(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    file, place = results_file(arguments), Place(arguments.out, arguments.data_dir, arguments.device)
    place.out.mkdir(parents=True, exist_ok=True)
    kept = {"data": arguments.data, "epochs": arguments.epochs, "data_dir": place.data_dir}
    runs = planned(names, seeds=arguments.seeds, **kept)
    found = {} if arguments.force else read(file)
    pending = [run for run in runs if run.id not in found]
    print(f"{len(pending)} runs to do, {len(runs) - len(pending)} finished in {file}", file=sys.stderr)
    broken, quiet = 0, not sys.stderr.isatty()
    with tqdm(total=sum(run.config["epochs"] for run in pending), unit="epoch", smoothing=0.05, disable=quiet) as bar:

        def told(run: Run, kind: str, value: Any) -> None:
            nonlocal broken
            if kind == "epoch":
                bar.update()
                bar.set_postfix_str(f"{run.stem}: loss {value['loss']:.3f}")
                return
            if kind == "record" and value is not None:
                append(file, value)
            broken += kind == "broken"
            tqdm.write(f"{run.stem}: {_summary(kind, value)}", file=sys.stderr)

        if arguments.jobs:
            whole = in_processes(pending, place, arguments.jobs, told)
        else:
            whole = in_this_process(pending, place, told)
    if not whole:
        print("runs.py: interrupted; the same command goes on.", file=sys.stderr)
        return 130
    return 1 if broken else 0


def _summary(kind: str, value: Any) -> str:
    if kind == "broken":
        return f"broke off: {value}"
    if value is None:
        return "interrupted"
    if "failed" in value:
        return f"failed: {value['failed']}"
    return f"test {value['accuracy']['test']:.2%}, {value['seconds']:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
