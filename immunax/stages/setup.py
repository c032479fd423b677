"""From a composed configuration to the objects of a run."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from immunax.data.dialog import Splits
from immunax.models.config import DecoderConfig
from immunax.models.hub import Checkpoint, ModelSource
from immunax.models.kernels import choice
from immunax.models.kernels.choice import AUTO
from immunax.models.lora import plain
from immunax.models.model import Model, Params, decoding_on
from immunax.outer.defense import Defense
from immunax.outer.training import RESULTS, Training
from immunax.runtime import cache, console, digest, goodput, manifest, memory_maps, mesh, mirror, peaks
from immunax.runtime.admission import admit
from immunax.runtime.checkpoint import Checkpoints, DamagedError
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import sharded
from immunax.runtime.metrics import Metrics
from immunax.runtime.user_config import UserConfig

_CHUNK = {"cpu": 256, "tpu": 256}
_ELSEWHERE = 2048
"""Hidden states projected at once: what a CPU's cache holds, and of a card what makes its sums of gradients small beside the
products. A mesh takes more of each device's. Measured: ``benchmarks/README.md``."""

_REMAT = {"tpu": "full"}
_OTHERWISE = "dots"

CHECKPOINTS, MODEL = "checkpoints", "model"
"""Folders of a run: its Orbax checkpoints, and the model that it exports."""


class ModelRecipe(Protocol):
    """Where a model comes from: a file or folder (:class:`~immunax.models.hub.ModelSource`), or a recipe that makes it."""

    def load(self, devices: Mesh | None = None) -> Checkpoint:
        """The model in memory, its weights split over a mesh; None is the default device."""
        ...

    def shape(self) -> DecoderConfig:
        """Its shape, without its weights."""
        ...


@dataclass(frozen=True)
class Compute:
    """How a model is computed.

    Attributes:
      remat: what each layer recomputes in the backward pass: ``none``, ``dots`` or ``full``; ``auto`` is ``full`` on a TPU, where
        memory is short, and ``dots`` elsewhere.
      dtype: of the computation; ``auto`` is float32 on a CPU and bfloat16 elsewhere. Weights stay float32. One that is named is
        kept on every backend: ``float32`` means products of float32 too, where accelerators would take fewer bits.
      attention: its implementation, see :func:`~immunax.models.kernels.choice.chosen`; ``auto`` is the platform's fastest.
      chunk: hidden states that a loss projects on the vocabulary at once; ``auto`` goes by the platform.
      decoding: how a token passes the layers where answers are decoded, as :attr:`~immunax.models.model.Model.decoding` has it:
        ``scanned`` or ``unrolled``; ``auto`` is chosen by the device, see :func:`~immunax.models.model.decoding_on`.
      peak: operations a second of one device in that dtype, which utilisations are shares of; None for what is known of it.
    """

    remat: str = AUTO
    dtype: str = AUTO
    attention: str = AUTO
    chunk: int | str = AUTO
    decoding: str = AUTO
    peak: float | None = None

    def __post_init__(self):
        if self.peak is not None and not self.peak > 0:
            raise UserError(
                f"compute.peak={self.peak}: expected the operations a second of one device, such as 989e12, or null."
            )

    def model(self, config: DecoderConfig, platform: str | None = None) -> Model:
        """The model of a shape, computed on a platform such as ``tpu``; on this process's by default.

        Raises:
          UserError: the platform or the model has no such implementation.
        """
        if self.chunk != AUTO and (not isinstance(self.chunk, int) or self.chunk < 1):
            raise UserError(f"compute.chunk={self.chunk!r}: expected auto, or a whole number of 1 or more.")
        where = choice.platform() if platform is None else platform
        dtype = self._dtype(where)
        return Model(
            config,
            _REMAT.get(where, _OTHERWISE) if self.remat == AUTO else self.remat,
            dtype,
            choice.chosen(self.attention, config, dtype, where),
            _CHUNK.get(where, _ELSEWHERE) if isinstance(self.chunk, str) else self.chunk,
            decoding_on(where) if self.decoding == AUTO else self.decoding,
        )

    def _dtype(self, platform: str) -> str:
        automatic = "float32" if platform == "cpu" else "bfloat16"
        return automatic if self.dtype == AUTO else self.dtype

    def settle(self) -> None:
        """What holds in this process from now on: products of float32 as exact as the dtype that was named, and the peak."""
        peaks.give(self._dtype(jax.default_backend()), self.peak)
        # A CPU computes them so anyway, and the setting would only change the names of its compiled programs.
        exact = self.dtype == "float32" and jax.default_backend() != "cpu"
        jax.config.update("jax_default_matmul_precision", "highest" if exact else None)


class Corpus(Protocol):
    """Whatever gives splits of dialogs."""

    def splits(self) -> Splits:
        """The splits."""
        ...


@dataclass(frozen=True)
class Parts:
    """What a set-up is made of.

    Attributes:
      model: where the model comes from.
      data: the corpus.
      compute: how the model is computed.
    """

    model: ModelRecipe
    data: Corpus
    compute: Compute

    @staticmethod
    def given(config: UserConfig) -> "Parts":
        """Those that the user names, with the groups ``model`` and ``data`` and the node ``compute``."""
        return Parts(config.build("model"), config.build("data"), config.build("compute"))

    @staticmethod
    def admitted(config: Mapping[str, Any], where: str) -> "Parts":
        """Those that a file from elsewhere names, see :func:`~immunax.runtime.admission.admit`.

        Args:
          config: plain.
          where: how messages call it.

        Raises:
          UserError: it is not obeyed.
        """
        kinds = {"model": ModelRecipe, "data": Corpus, "compute": Compute}
        return Parts(*(admit(config.get(name), kind, f"{where} ({name})") for name, kind in kinds.items()))


@dataclass(frozen=True)
class Setup:
    """What every command starts from.

    Attributes:
      checkpoint: the model as loaded, but for its weights, which :func:`set_up` gives apart so that they can be freed.
      model: its static description.
      splits: the data.
      digests: SHA-256 of the weight files and of the dialogs.
      devices: the mesh that weights are split over.
    """

    checkpoint: Checkpoint
    model: Model
    splits: Splits
    digests: dict[str, str]
    devices: Mesh


def set_up(parts: Parts, devices: Mesh | None = None) -> tuple[Setup, Params]:
    """Loads the model and the data that a configuration names.

    Args:
      parts: of the configuration.
      devices: the mesh that weights are loaded onto; None is one of the default device.

    Returns:
      :class:`Setup`, and the plain float32 weights.

    Raises:
      UserError: either cannot be loaded.
    """
    devices = mesh.alone() if devices is None else devices
    cache.enable_compilation_cache()
    parts.compute.settle()
    memory_maps.release_if_crowded()  # for a sweep, whose jobs are one process
    with console.phase("load data"), goodput.spending("load"):
        splits = parts.data.splits()
    with console.phase("load model"), goodput.spending("load"):
        checkpoint = load(parts.model, devices)
    digests = {**checkpoint.digests, "data": digest.of_json(asdict(splits))}
    model = parts.compute.model(checkpoint.config)
    return Setup(replace(checkpoint, params=None), model, splits, digests, devices), checkpoint.params


def load(source: ModelRecipe, devices: Mesh | None = None, behind: tuple[Path, ...] = ()) -> Checkpoint:
    """Loads a model: of a run of ``immunax.train`` what it exported, or its newest checkpoint as long as it has not.

    Args:
      source: the path of a file's or folder's source may be a run's folder, which holds ``manifest.json`` and ``checkpoints``.
      devices: the mesh that weights are split over; None is the default device.
      behind: the runs that began with this model.

    Raises:
      UserError: it cannot be loaded.
    """
    folder = _run(source)
    if folder is None or not isinstance(source, ModelSource):
        return source.load(devices)
    if not any(mirror.is_there(folder / each) for each in (MODEL, CHECKPOINTS)):
        raise UserError(
            f"run {source.path} leaves no weights (trainer.keep={RESULTS}): make it again under another run=NAME with "
            "trainer.keep=export, or give another model."
        )
    if mirror.is_whole(folder / MODEL):
        return replace(source, path=mirror.named(folder / MODEL)).load(devices)
    devices = mesh.alone() if devices is None else devices
    config, where = _configuration(folder)
    base = load(_model(config, where, folder, behind), devices, (*behind, folder))
    computed = admit(config.get("compute"), Compute, where).model(base.config)
    trainable = admit(config.get("trainer"), Training, where).trainable(
        computed,
        admit(config.get("defense"), Defense, where),  # pyright: ignore[reportAbstractUsage]
    )
    shapes = jax.eval_shape(trainable.split, base.params, jax.random.key(0))
    base = replace(base, params=None)  # before the restored ones are there too
    with Checkpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
        step = checkpoints.latest()
        if step is None:
            raise UserError(f"run {folder} has no whole checkpoint yet: let it train, or give another model.")
        try:
            trained, held = (
                checkpoints.restore_part(step, name, sharded(like, devices)) if jax.tree.leaves(like) else like
                for name, like in zip(("train.trained", "train.held"), shapes, strict=True)
            )
        except DamagedError as error:
            raise UserError(f"{error}: start the run again, which goes on from the one before it.") from error
    params = plain(trainable.join(trained, held))
    if source.chat_template is not None or source.template_args:
        base = source.spoken(base)
    return replace(base, params=params, digests={**base.digests, f"{folder.name}, step {step}": digest.of_tree(params)})


def shape(source: ModelRecipe, behind: tuple[Path, ...] = ()) -> DecoderConfig:
    """The shape of what :func:`load` loads, without its weights.

    Args:
      source, behind: as there.

    Raises:
      UserError: its files cannot be read.
    """
    folder = _run(source)
    if folder is None:
        return source.shape()
    return shape(_model(*_configuration(folder), folder, behind), (*behind, folder))


def _configuration(folder: Path) -> tuple[Mapping[str, Any], str]:
    """Of a run, and how messages call it."""
    return manifest.read(folder)["config"], f"the configuration in {folder / manifest.FILE}"


def _model(config: Mapping[str, Any], where: str, folder: Path, behind: tuple[Path, ...]) -> ModelRecipe:
    """The model that a run began with."""
    if folder in behind:
        raise UserError(f"{where} leads back to itself, run by run; give a model that was exported.")
    return near(admit(config.get("model"), ModelRecipe, where), where)


def _run(source: ModelRecipe) -> Path | None:
    """The folder of a run of ``immunax.train`` that a source names, if it names one."""
    if not isinstance(source, ModelSource):
        return None
    folder = mirror.local(source.path)
    if not mirror.is_mirrored(folder):
        folder = folder.resolve()
    if not mirror.fetch(folder / manifest.FILE).is_file():
        return None
    left = any(mirror.is_there(folder / each) for each in (MODEL, CHECKPOINTS))
    return folder if left or _is_weightless(folder) else None


def _is_weightless(folder: Path) -> bool:
    """Whether a run was not to leave any weights; a manifest may be another program's."""
    with suppress(UserError, KeyError, TypeError):
        return manifest.read(folder)["config"]["trainer"]["keep"] == RESULTS
    return False


def near(source: ModelRecipe, where: str) -> ModelRecipe:
    """Refuses a model that a file from elsewhere would have this machine download.

    Args:
      source: of the model.
      where: how messages call the file.

    Raises:
      UserError: it is not here.
    """
    if isinstance(source, ModelSource) and not source.is_here():
        raise UserError(
            f"{where} names the model {source.path!r}, which is not on this machine; give it where the command takes one."
        )
    return source


def check_context(model: Model, lengths: Mapping[str, int]) -> None:
    """Refuses sequences longer than a model's context, where it was never trained.

    Args:
      model: gives the context's length.
      lengths: tokens by the name of the field that sets them.

    Raises:
      UserError: one is longer.
    """
    for name, tokens in lengths.items():
        if tokens > model.config.max_positions:
            raise UserError(
                f"{name}={tokens} tokens: more than the model's context of {model.config.max_positions}; lower it."
            )


def open_metrics(config: UserConfig, folder: Path) -> Metrics:
    """The metrics of a run, sent to the group ``tracker`` too where one is chosen."""
    return Metrics(folder, [config.build("tracker")] if "tracker" in config else [])
