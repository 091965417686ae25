"""Makes a benchmark's candidates of checkpoints, ONNX files, engines and other projects' files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msfnet.models import CHECKPOINT_SUFFIXES, open_model, read_spec
from msfnet_benchmarks.candidates import (
    Candidate,
    engine_candidate,
    onnx_candidate,
    peer_candidate,
)
from msfnet_benchmarks.peers import peer_spec
from msfnet_runtime import EngineArtifact, MsfnetError, OnnxArtifact
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.engines.providers import Provider
from msfnet_runtime.files import existing_file, sha256

if TYPE_CHECKING:
    from msfnet_train.torch_engine import TorchEngine

PYTORCH = "pytorch"
"""The name of a baseline: the checkpoint from which the first model was exported."""


def order_candidates(
    models: Sequence[Path],
    *,
    against: str | Path | None = None,
    modes: Sequence[str] = ("eager",),
    providers: Sequence[str] = ("cpu",),
    peers: Sequence[Path] = (),
    threads: int = 0,
) -> list[Candidate]:
    """Return the candidates of a comparison, the baseline first; none of them is opened yet.

    Args:
        models: checkpoints, ONNX files and engines.
        against: the baseline: a checkpoint, or ``pytorch`` for the one from which the first model
            was exported, looked for beside and below the model's folder and its parent.
        modes: ways in which PyTorch runs each checkpoint; the first is the baseline's.
        providers: each runs each ONNX file, as :func:`~msfnet_runtime.open_engine` takes them.
        peers: ONNX files of other projects.
        threads: CPU threads; 0 leaves the choice to the libraries.

    Raises:
        MsfnetError: an unknown mode or provider, one that is not available here, two candidates of
            one name, modes without a checkpoint, missing files, or no checkpoint found.
    """
    for provider in providers:
        Provider.parse(provider)
    baseline = [_find_baseline(against, models[0])] if against else []
    paths = [*baseline, *models]
    if any(path.suffix in CHECKPOINT_SUFFIXES for path in paths):
        from msfnet_train.torch_engine import check_mode

        for mode in modes:
            check_mode(mode)
    elif tuple(modes) != ("eager",):
        raise MsfnetError("PyTorch's modes need a checkpoint, and no model is one; name one")
    for path in peers:
        peer_spec(path)
    found = [
        candidate for path in paths for candidate in _candidates(path, modes, providers, threads)
    ]
    found += [
        peer_candidate(path, provider=provider, threads=threads)
        for path in peers
        for provider in providers
    ]
    names = [candidate.name for candidate in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise MsfnetError(f"two models are called {twice}; rename one of the files")
    return found


def model_candidate(path: Path, *, provider: str = "cpu", threads: int = 0) -> Candidate:
    """Return any model file as the one candidate of a measurement.

    Raises:
        MsfnetError: missing or unreadable file, or an unknown provider.
    """
    return next(_candidates(path, ("eager",), (provider,), threads))


def _candidates(
    path: Path, modes: Sequence[str], providers: Sequence[str], threads: int
) -> Iterator[Candidate]:
    """Yield a model with each of its ways to run."""
    existing_file(path, "model")
    if path.suffix in CHECKPOINT_SUFFIXES:
        yield from _Checkpoint(path, threads).candidates(modes)
    elif path.suffix in ENGINE_SUFFIXES:
        yield engine_candidate(EngineArtifact.read(path))
    else:
        for provider in providers:
            yield onnx_candidate(OnnxArtifact.read(path), provider=provider, threads=threads)


class _Checkpoint:
    """A checkpoint whose modes share one copy of the weights."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._first: TorchEngine | None = None

    def candidates(self, modes: Sequence[str]) -> Iterator[Candidate]:
        """Yield the checkpoint with each of PyTorch's modes."""
        from msfnet_train.torch_engine import usual_device

        on_gpu = usual_device() == "cuda"
        for mode in modes:
            yield Candidate(
                name=f"PyTorch {self._path.name}{'' if mode == 'eager' else f' {mode}'}",
                precision="fp32",
                open=partial(self._open, mode),
                on_gpu=on_gpu,
                size_bytes=self._path.stat().st_size,
                file=self._path,
                fixed_batch=mode == "cuda-graph",
                counts=self._count,
                start=partial(open_model, self._path, mode=mode, threads=self._threads),
                threads=self._threads,
            )

    def _open(self, mode: str) -> TorchEngine:
        from msfnet_train.torch_engine import TorchEngine

        engine = TorchEngine(self._path, mode=mode, threads=self._threads, weights=self._first)
        self._first = self._first or engine
        return engine

    def _count(self) -> tuple[int, int] | None:
        return self._first.count() if self._first else None


def _find_baseline(against: str | Path, model: Path) -> Path:
    """Return the checkpoint named, or the one whose SHA-256 a model's spec holds."""
    if str(against) != PYTORCH:
        return Path(against)
    wanted = read_spec(model).checkpoint_sha256
    folders = (model.parent, model.parent.parent)
    checkpoints = {
        path
        for folder in folders
        for pattern in ("*", "*/*", "*/*/*")
        for path in folder.glob(pattern)
        if path.suffix in CHECKPOINT_SUFFIXES and path.is_file()
    }
    for path in sorted(checkpoints):
        if wanted and sha256(path) == wanted:
            return path
    raise MsfnetError(
        f"the checkpoint of {model} is not beside it; name it as the baseline",
        parameter="against",
    )
