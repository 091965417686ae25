"""What takes part in a benchmark: an artefact, and what runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from msfnet.models import CHECKPOINT_SUFFIXES, open_model, read_spec
from msfnet_benchmarks.peers import open_peer, peer_spec, random_batch
from msfnet_benchmarks.timing.energy import device_memory
from msfnet_benchmarks.timing.generated import generated_batch, usual_shape
from msfnet_runtime import DepthEstimator, Engine, MsfnetError, OnnxArtifact
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.engines.providers import Provider
from msfnet_runtime.files import sha256

if TYPE_CHECKING:
    from msfnet_train.torch_engine import TorchEngine

PYTORCH = "pytorch"
"""What ``--against`` takes for "the checkpoint the first model was exported from"."""

_PEER = "random input, engine only, no depth error"


@dataclass(frozen=True)
class Contender:
    """One row of a benchmark before it is measured."""

    path: Path
    provider: str = "cpu"
    """Of ONNX files."""
    mode: str = "eager"
    """Of checkpoints."""
    peer: bool = False
    """An ONNX file of another project."""

    @property
    def is_checkpoint(self) -> bool:
        """Whether PyTorch runs it."""
        return self.path.suffix in CHECKPOINT_SUFFIXES

    @property
    def name(self) -> str:
        """The file's name, with what runs it where that is not the usual."""
        if self.is_checkpoint:
            return f"PyTorch {self.path.name}{'' if self.mode == 'eager' else f' {self.mode}'}"
        return self.path.name if self.provider == "cpu" else f"{self.path.name} {self.provider}"

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU runs it."""
        if self.is_checkpoint:
            import torch

            return torch.cuda.is_available()
        chosen = Provider.parse(self.provider).name
        return self.path.suffix in ENGINE_SUFFIXES or chosen in ("cuda", "tensorrt")

    @property
    def size_bytes(self) -> int:
        """On disk, weights in a file of their own included."""
        if self.path.suffix != ".onnx" or self.peer:
            return self.path.stat().st_size
        return OnnxArtifact.read(self.path).bytes

    def options(self, threads: int) -> dict[str, Any]:
        """Return the keyword arguments that :func:`~msfnet.models.open_model` opens it with."""
        return {"provider": self.provider, "threads": threads, "mode": self.mode}


@dataclass(frozen=True)
class Opened:
    """A contender ready to run."""

    contender: Contender
    engine: Engine
    device_bytes: int | None = None
    """Of the GPU's memory, taken by opening it and one call; None on a CPU."""

    @property
    def name(self) -> str:
        """The contender's."""
        return self.contender.name

    @property
    def estimator(self) -> DepthEstimator | None:
        """Frame to depth; None for a peer, whose depth nobody knows how to read."""
        return None if self.contender.peer else DepthEstimator(self.engine)

    @property
    def images(self) -> int | None:
        """How many images one call takes; None where that is open."""
        first = self.engine.spec.inputs[0].shape[0]
        fixed = isinstance(first, int) or self.contender.mode == "cuda-graph"
        return (first if isinstance(first, int) else 1) if fixed else None

    def batch(self, count: int = 1) -> NDArray[Any]:
        """Return ``count`` images as the engine takes them: generated, or random for a peer."""
        spec = self.engine.spec
        if self.contender.peer:
            return random_batch(spec, count)
        first, *rest = usual_shape(spec)
        return generated_batch(spec, (count if self.images is None else first, *rest))

    @property
    def described(self) -> str:
        """What really runs it."""
        told = self.engine.describe()
        return f"{told} ({_PEER})" if self.contender.peer else told


def line_up(
    models: Sequence[Path],
    *,
    against: str | Path | None = None,
    modes: Sequence[str] = ("eager",),
    providers: Sequence[str] = ("cpu",),
    peers: Sequence[Path] = (),
) -> list[Contender]:
    """Return who takes part, the baseline first, checked as far as nothing need be opened.

    Args:
        models: checkpoints, ONNX files and engines; each ONNX file is run by each provider.
        against: the baseline: a checkpoint, or ``pytorch`` for the one that the first model was
            exported from, looked for beside and below the model's folder and its parent.
        modes: how PyTorch runs checkpoints, each of them; the first is the baseline's.
        providers: as :func:`~msfnet_runtime.open_engine` takes them.
        peers: ONNX files of other projects.

    Raises:
        MsfnetError: an unknown mode or provider, one that cannot be had here, two contenders of
            one name, modes without a checkpoint, missing files, or no checkpoint found.
    """
    for provider in providers:
        Provider.parse(provider)
    baseline = [_find_baseline(against, models[0])] if against else []
    found = [
        contender
        for path in (*baseline, *models)
        for contender in _ways(path, modes or ("eager",), providers or ("cpu",))
    ]
    found += [Contender(path, provider, peer=True) for path in peers for provider in providers]
    names = [contender.name for contender in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise MsfnetError(f"two models are called {twice}; rename one of the files")
    checkpoints = [contender for contender in found if contender.is_checkpoint]
    if tuple(modes) != ("eager",) and not checkpoints:
        raise MsfnetError("--pytorch says how a checkpoint runs; name one, or --against pytorch")
    if checkpoints:
        from msfnet_train.torch_engine import check_mode

        for mode in modes:
            check_mode(mode)
    for path in peers:
        peer_spec(path)
    for path in (*baseline, *models):
        if not path.is_file():
            raise MsfnetError(f"{path} does not exist; check the path of the model")
    return found


def open_all(contenders: Sequence[Contender], threads: int, stack: ExitStack) -> dict[str, Opened]:
    """Open every contender, by name; the modes of one checkpoint share its weights.

    Raises:
        MsfnetError: one cannot be opened.
    """
    weights: dict[Path, TorchEngine] = {}
    opened = {}
    for contender in contenders:
        before = device_memory() if contender.on_gpu else None
        engine = stack.enter_context(_open(contender, threads, weights))
        taken = None
        if before is not None:
            engine.infer(Opened(contender, engine).batch())
            taken = max((device_memory() or before) - before, 0)
        opened[contender.name] = Opened(contender, engine, taken)
    return opened


def _open(contender: Contender, threads: int, weights: dict[Path, TorchEngine]) -> Engine:
    if contender.peer:
        return open_peer(contender.path, provider=contender.provider, threads=threads)
    if not contender.is_checkpoint:
        return open_model(contender.path, provider=contender.provider, threads=threads)
    from msfnet_train.torch_engine import TorchEngine

    engine = TorchEngine(
        contender.path,
        mode=contender.mode,
        threads=threads,
        weights=weights.get(contender.path),
    )
    weights.setdefault(contender.path, engine)
    return engine


def _ways(path: Path, modes: Sequence[str], providers: Sequence[str]) -> Iterator[Contender]:
    """Yield a model with each of what may run it."""
    if path.suffix in CHECKPOINT_SUFFIXES:
        yield from (Contender(path, mode=mode) for mode in modes)
    elif path.suffix == ".onnx":
        yield from (Contender(path, provider) for provider in providers)
    else:
        yield Contender(path)


def _find_baseline(against: str | Path, model: Path) -> Path:
    """Return the checkpoint named, or the one whose SHA-256 a model's spec holds."""
    if str(against) != PYTORCH:
        return Path(against)
    wanted = read_spec(model).checkpoint_sha256
    folders = (model.parent, model.parent.parent)
    candidates = {
        path
        for folder in folders
        for pattern in ("*", "*/*", "*/*/*")
        for path in folder.glob(pattern)
        if path.suffix in CHECKPOINT_SUFFIXES and path.is_file()
    }
    for path in sorted(candidates):
        if wanted and sha256(path) == wanted:
            return path
    raise MsfnetError(
        f"the checkpoint of {model} is not beside it; name it with --against best.ckpt"
    )
