"""The teacher: any open_clip model. The only importer of open_clip, and never imported by training."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Before open_clip, which imports torchvision itself.
from cache.vision import torchvision  # isort: split

import open_clip
from open_clip.factory import get_model_config, load_checkpoint
from open_clip.transform import PreprocessCfg, image_transform_v2

from cache.devices import check_compiler
from cache.errors import UserError, nearest_names
from cache.files import digest, sha256_of
from cache.short_texts import context_of, lengths
from cache.spec import HF_HUB, LOCAL_DIR, SQUASH_SIZE, TeacherSpec
from cache.transfer import fetched_later, moved_beside

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
REGIONS_PER_SIDE = 7


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A loaded teacher: embeds preprocessed images and texts into one space of ``embed_dim`` numbers."""

    spec: TeacherSpec
    model: nn.Module
    tokenizer: Any
    transform: Callable[[Any], Tensor]
    device: torch.device
    embed_dim: int
    context_length: int
    channels_last: bool = False

    def embed_images(self, images_B3HW: Tensor) -> Tensor:
        """Return raw embeddings [B, D] float32 on the CPU for preprocessed images [B, 3, H, W] float32."""
        return self.start_images(images_B3HW)()

    @torch.inference_mode()
    def start_images(self, images_B3HW: Tensor) -> Callable[[], Tensor]:
        """Begin :meth:`embed_images`, and return what waits for the embeddings.

        A GPU computes while its caller goes on; so start the next batch before waiting for this one.
        """
        images = moved_beside(images_B3HW, self.device, DTYPES[self.spec.precision])
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return fetched_later(self.model.encode_image(images).float())  # type: ignore[operator]

    def check_regions(self) -> None:
        """Make sure that :meth:`embed_regions` can work; UserError else."""
        _patch_tokens(self.model.visual, self.spec.model)

    @torch.inference_mode()
    def embed_regions(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings as :meth:`embed_images` does, and those of 7x7 regions, [B, 49, D], row by row.

        A region is the mean of the patch tokens in it, each put through the tower's final norm and
        projection in place of its class token.

        Raises
        ------
        UserError
            If the image tower is no ViT, or its pooling is a learnt one.
        """
        tokens: list[Tensor] = []
        last, project = _patch_tokens(self.model.visual, self.spec.model)
        hook = last.register_forward_hook(lambda module, given, output: tokens.append(output))
        try:
            embeddings = self.embed_images(images_B3HW)
        finally:
            hook.remove()
        patches = project(tokens[0]).float()
        side = math.isqrt(patches.shape[1])
        grid = patches.transpose(1, 2).unflatten(2, (side, side))
        pooled = F.adaptive_avg_pool2d(grid, REGIONS_PER_SIDE)
        return embeddings, pooled.flatten(2).transpose(1, 2).cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> tuple[Tensor, int]:
        """Return raw embeddings [T, D] float32 on the CPU, and how many texts had to be truncated.

        Texts are embedded in order of length, so that little of a batch is padding and the batches are
        the same whatever order they come in, and returned in the order given.
        """
        rows = torch.empty(len(texts), self.embed_dim)
        tokens = self.tokenizer(list(texts)) if texts else torch.empty(0, 0)
        length = lengths(self.model, tokens).tolist()
        order = sorted(range(len(texts)), key=lambda i: (length[i], texts[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            longest = length[chosen[-1]]
            with context_of(self.model, longest):
                found = self.model.encode_text(tokens[chosen, :longest].to(self.device))  # type: ignore[operator]
            rows[chosen] = found.float().cpu()
        return rows, sum(self.is_too_long(text) for text in texts)

    def is_too_long(self, text: str) -> bool:
        """Say whether the tokenizer cuts a text to fit its context."""
        if hasattr(self.tokenizer, "sot_token_id"):
            return len(self.tokenizer.encode(text)) + 2 > self.context_length
        tokens = self.tokenizer.tokenizer(self.tokenizer.clean_fn(text))["input_ids"]
        return len(tokens) > self.context_length


def load_teacher(
    model: str,
    *,
    pretrained: str | None = None,
    preprocessing: str = "model",
    precision: str = "auto",
    compile: bool = False,
    device: torch.device | str = "cpu",
) -> Teacher:
    """Load an open_clip model and its weights.

    Parameters
    ----------
    model
        An open_clip name (``ViT-L-14-quickgelu``), ``local-dir:FOLDER`` or ``hf-hub:ORG/REPO``.
    pretrained
        A tag of that model (``openai``) or a checkpoint file. Left out for the two prefixed kinds.
    preprocessing
        ``model``: the model's own. ``squash``: 256 x 256 first, as the original research code.
    precision
        ``float32``, ``bfloat16``, ``float16``, or ``auto``: float32 on the CPU, bfloat16 on CUDA
        devices that have it, else float16.
    compile
        Whether the image tower goes through torch.compile: the same rows but for rounding.

    Raises
    ------
    UserError
        If no model or tag has the name, weights are missing or of another model, or the weights were
        trained with another activation (QuickGELU) than the model has; with ``compile``, if there is
        nothing to compile with.
    """
    device = torch.device(device)
    if compile:
        check_compiler(device)
    source = _resolve(model, pretrained)
    precision = _precision(precision, device)
    with _quiet_open_clip():
        network = _build(source, precision, device)
        tokenizer = open_clip.get_tokenizer(source.name)
    config = PreprocessCfg(**network.visual.preprocess_cfg)  # type: ignore[union-attr, arg-type]
    size = config.size if isinstance(config.size, int) else config.size[0]
    spec = TeacherSpec(
        model=model,
        pretrained=pretrained or "its own",
        architecture=source.architecture,
        weights_sha256=sha256_of(source.weights),
        preprocessing=preprocessing,
        image_size=size,
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=config.interpolation,
        resize_mode=config.resize_mode,
        precision=precision,
    )
    transform = (
        _squash(size, config) if preprocessing == "squash" else image_transform_v2(config, is_train=False)
    )
    context_length = int(getattr(tokenizer, "context_length", 77))
    if compile:
        network.visual.compile()  # type: ignore[operator, union-attr]
    tokens = tokenizer(["a photo"]).to(device)
    with torch.inference_mode():
        embed_dim = network.encode_text(tokens).shape[1]  # type: ignore[operator]
    return Teacher(
        spec=spec,
        model=network,
        tokenizer=tokenizer,
        transform=transform,
        device=device,
        embed_dim=embed_dim,
        context_length=context_length,
        channels_last=_prefers_channels_last(network),
    )


def _patch_tokens(visual: Any, model: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return the module whose output are all tokens, and what makes the patches' embeddings of them."""
    trunk: Any = getattr(visual, "trunk", None)
    if isinstance(visual, open_clip.transformer.VisionTransformer) and visual.attn_pool is None:
        return visual.transformer, lambda tokens: visual.ln_post(tokens[:, 1:]) @ visual.proj
    if hasattr(trunk, "num_prefix_tokens") and getattr(trunk, "attn_pool", None) is None:
        first = trunk.num_prefix_tokens
        return trunk.norm, lambda tokens: visual.head(trunk.head(trunk.fc_norm(tokens[:, first:])))
    raise UserError(
        f"the image tower of {model} has no patch tokens that can be embedded one by one",
        fix="leave --regions out, or choose a ViT teacher without attention pooling.",
    )


def _prefers_channels_last(network: nn.Module) -> bool:
    """Put a convolutional image tower in the layout that it is fast in; a ViT gains nothing."""
    if sum(isinstance(module, nn.Conv2d) for module in network.visual.modules()) < 3:  # type: ignore[union-attr]
        return False
    network.visual.to(memory_format=torch.channels_last)  # type: ignore[union-attr, call-overload]
    return True


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a teacher comes from, once every name has been checked."""

    name: str
    tag: str | None
    weights: Path
    architecture: str


def _resolve(model: str, pretrained: str | None) -> _Source:
    if model.startswith((LOCAL_DIR, HF_HUB)):
        if pretrained:
            raise UserError(
                f"--pretrained {pretrained} cannot go with {model}, which brings its own weights",
                fix="leave --pretrained out.",
            )
        return _resolve_local_dir(model) if model.startswith(LOCAL_DIR) else _resolve_hub(model)
    name = _known_name(model)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        raise UserError(f"{model} needs weights", fix=f"give --pretrained with {_tags_or_file(tags)}.")
    if Path(pretrained).is_file():
        return _resolve_file(name, Path(pretrained))
    if open_clip.get_pretrained_cfg(name, pretrained):
        return _resolve_tag(name, pretrained)
    _refuse_weights_name(name, pretrained, tags)
    raise AssertionError("unreachable")


def _known_name(model: str) -> str:
    name = model.replace("/", "-")
    if name not in open_clip.list_models():
        raise UserError(
            f"no teacher is called {model!r}",
            fix=f"{nearest_names(name, open_clip.list_models())}give an open_clip name, local-dir:FOLDER or "
            "hf-hub:ORG/REPO.",
        )
    return name


def model_config(model: str) -> dict[str, Any]:
    """Return open_clip's config of a model, which is named as for :func:`load_teacher`.

    Raises
    ------
    UserError
        If no model has the name.
    """
    if model.startswith((LOCAL_DIR, HF_HUB)):
        return dict(get_model_config(_resolve(model, None).name))
    return dict(get_model_config(_known_name(model)))


def _tags_or_file(tags: Sequence[str]) -> str:
    return f"a checkpoint file or one of {', '.join(tags)}" if tags else "a checkpoint file"


def _refuse_weights_name(name: str, pretrained: str, tags: Sequence[str]) -> None:
    if "/" in pretrained or Path(pretrained).suffix in (".pt", ".pth", ".bin", ".safetensors"):
        parent = Path(pretrained).parent
        near = nearest_names(
            Path(pretrained).name, [p.name for p in parent.glob("*")] if parent.is_dir() else []
        )
        raise UserError(f"the weights file {pretrained} does not exist", fix=f"{near}check --pretrained.")
    raise UserError(
        f"{name} has no weights called {pretrained!r}",
        fix=f"{nearest_names(pretrained, tags)}give --pretrained with {_tags_or_file(tags)}.",
    )


def _resolve_file(name: str, file: Path) -> _Source:
    _check_activation(name, _file_wants_quick_gelu(file), str(file))
    return _Source(name=name, tag=None, weights=file, architecture=name)


def _resolve_tag(name: str, tag: str) -> _Source:
    config = open_clip.get_pretrained_cfg(name, tag)
    _check_activation(name, bool(config.get("quick_gelu", False)), f"{tag!r}")
    try:
        with _quiet_open_clip():
            weights = Path(open_clip.download_pretrained(config))
    # The download goes through urllib or the hub's client; each has its own family of errors.
    except Exception as error:
        raise UserError(
            f"the weights {tag!r} of {name} could not be downloaded ({_first_line(error)})",
            fix="connect to the network, or give a checkpoint file with --pretrained.",
        ) from error
    return _Source(name=name, tag=tag, weights=weights, architecture=name)


def _file_wants_quick_gelu(file: Path) -> bool | None:
    """Say whether a checkpoint was trained with QuickGELU; None when its file does not tell."""
    if _is_torchscript(file):
        return True  # OpenAI's own archives are TorchScript, and all of them use QuickGELU
    for model, tag in open_clip.list_pretrained():
        config = open_clip.get_pretrained_cfg(model, tag)
        if file.name != "open_clip_pytorch_model.bin" and Path(config.get("url", "")).name == file.name:
            return bool(config.get("quick_gelu", False))
    return None


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _check_activation(name: str, wanted: bool | None, weights: str) -> None:
    has = bool((get_model_config(name) or {}).get("quick_gelu", False))
    if wanted is None or wanted == has:
        return
    right = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
    raise UserError(
        f"the weights {weights} were trained {'with' if wanted else 'without'} QuickGELU, but {name} runs "
        f"{'with' if has else 'without'} it: every embedding would be wrong",
        fix=f"use --model {right}.",
    )


def _resolve_local_dir(model: str) -> _Source:
    folder = Path(model.removeprefix(LOCAL_DIR))
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise UserError(
            f"{folder} {'has no open_clip_config.json' if folder.is_dir() else 'does not exist'}",
            fix="give a folder with open_clip_config.json and its weights.",
        )
    weights = open_clip.factory._find_checkpoint_in_dir(folder)
    if weights is None:
        raise UserError(
            f"{folder} has no weights file (*.safetensors, *.bin or *.pth)",
            fix="put open_clip_model.safetensors beside its open_clip_config.json.",
        )
    try:
        architecture = digest(get_model_config(model))
    except ValueError as error:
        raise UserError(
            f"{config} is not valid JSON ({error})", fix="save the model's config again."
        ) from error
    return _Source(name=model, tag=None, weights=Path(weights), architecture=architecture)


def _resolve_hub(model: str) -> _Source:
    from open_clip.pretrained import download_pretrained_from_hf

    repository = model.removeprefix(HF_HUB)
    try:
        with _quiet_open_clip():
            weights = Path(download_pretrained_from_hf(repository))
            architecture = digest(get_model_config(model))
    except Exception as error:  # the hub's client has a family of errors of its own
        raise UserError(
            f"{model} could not be fetched ({_first_line(error)})",
            fix="check the name and the network, or download the folder and give local-dir:FOLDER.",
        ) from error
    return _Source(name=model, tag=None, weights=weights, architecture=architecture)


def _build(source: _Source, precision: str, device: torch.device) -> nn.Module:
    own_weights = source.name.startswith((LOCAL_DIR, HF_HUB))
    try:
        network = open_clip.create_model(
            source.name,
            pretrained=source.tag,
            precision=PRECISIONS[precision],
            device=device,
            require_pretrained=own_weights or source.tag is not None,
        )
        if source.tag is None and not own_weights:
            # A TorchScript archive is read by torch.jit.load, which a weights_only load refuses to do.
            load_checkpoint(network, str(source.weights), weights_only=not _is_torchscript(source.weights))
    # Broken files and wrong models surface as KeyError, RuntimeError, UnpicklingError and others.
    except Exception as error:
        raise UserError(
            f"the weights {source.weights} do not fit {source.name} ({_first_line(error)})",
            fix="give the checkpoint of this very model, or the model that the checkpoint was made with.",
        ) from error
    return network.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _precision(wanted: str, device: torch.device) -> str:
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def _squash(size: int, config: PreprocessCfg) -> Callable[[Any], Tensor]:
    transforms = torchvision.transforms
    return transforms.Compose(
        [
            transforms.Resize((SQUASH_SIZE, SQUASH_SIZE)),
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean=config.mean, std=config.std),
        ]
    )


@contextlib.contextmanager
def _quiet_open_clip() -> Iterator[None]:
    # open_clip logs on the root logger what we either check ourselves or raise.
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def text_network_of(teacher: Teacher) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and the weights of a teacher's text tower alone, for :func:`build_text_network`.

    Raises
    ------
    UserError
        If the text tower is not open_clip's own transformer with CLIP's tokenizer.
    """
    config = get_model_config(
        teacher.spec.model.replace("/", "-") if ":" not in teacher.spec.model else teacher.spec.model
    )
    text = dict(config["text_cfg"])
    if (
        text.get("hf_model_name")
        or text.get("hf_tokenizer_name")
        or not hasattr(teacher.tokenizer, "sot_token_id")
    ):
        raise UserError(
            f"the text tower of {teacher.spec.model} is not open_clip's transformer with CLIP's tokenizer",
            fix="leave --keep-text-tower out, or choose a CLIP teacher.",
        )
    state = teacher.model.state_dict()
    own = "text." if hasattr(teacher.model, "text") else ""
    weights = {
        key.removeprefix(own): value.detach().cpu().contiguous()
        for key, value in state.items()
        if key.startswith(own) and not key.startswith(("visual.", "logit_", "text_decoder."))
    }
    kept = {
        "embed_dim": config["embed_dim"],
        "quick_gelu": bool(config.get("quick_gelu", False)),
        "text_cfg": text,
    }
    return kept, weights


def build_text_network(config: dict[str, Any], weights: dict[str, Tensor]) -> tuple[nn.Module, Any]:
    """Return a frozen text tower in float32 and its tokenizer; no image tower is built.

    Raises
    ------
    ValueError, RuntimeError
        If config and weights do not fit each other.
    """
    from open_clip.model import _build_text_tower
    from open_clip.tokenizer import SimpleTokenizer

    text = dict(config["text_cfg"])
    network = _build_text_tower(config["embed_dim"], text, quick_gelu=config["quick_gelu"])
    network.load_state_dict({key: value.float() for key, value in weights.items()})
    network.output_tokens = False
    tokenizer = SimpleTokenizer(
        context_length=int(text.get("context_length", 77)), **(text.get("tokenizer_kwargs") or {})
    )
    return network.eval().requires_grad_(False), tokenizer
