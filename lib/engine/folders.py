"""Image folders: PATH/train/<class>/ [PATH/val/<class>/] PATH/test/<class>/, read and checked."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def parts(path: Path) -> list[str]:
    return ["train", *(["val"] if (path / "val").is_dir() else []), "test"]


def hidden(path: Path) -> bool:
    """Whether a file or folder is a system's own and no image or class: .DS_Store, .ipynb_checkpoints, ._0.png, __MACOSX."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def class_names(path: Path) -> list[str]:
    """The class folders of PATH/train. ValueError if a part is missing, or has other classes."""
    check_links(path)
    for part in parts(path):
        if not (path / part).is_dir():
            raise ValueError(f"there is no folder {path / part}; an image folder has train/, test/ and perhaps val/")
    names = {part: sorted(p.name for p in (path / part).iterdir() if p.is_dir() and not hidden(p)) for part in parts(path)}
    if len(names["train"]) < 2:
        raise ValueError(f"{path / 'train'} has {len(names['train'])} class folders; at least 2 are needed")
    for part, own in names.items():
        if own != names["train"]:
            odd = sorted(set(own) ^ set(names["train"]))
            raise ValueError(f"{path / part} and {path / 'train'} differ in the class folders {', '.join(odd)}")
    return names["train"]


def image_files(path: Path) -> list[Path]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found = (p for p in path.iterdir() if p.is_file() and p.suffix.lower() in IMG_EXTENSIONS)
    return sorted(p for p in found if not hidden(p))


def check_links(path: Path) -> None:
    """ValueError for a link in an image folder that leads out of it: a folder from elsewhere could show any file by one."""
    inside = path.resolve()
    for link in path.rglob("*"):
        if link.is_symlink() and not link.resolve().is_relative_to(inside):
            raise ValueError(f"{link} is a link out of {path}, to {link.resolve()}; an image folder holds its images itself")


def read_image(file: Path) -> Tensor:
    """An image file in colour, uint8 (3, H, W). ValueError if it cannot be read, or has more than 8 bits a channel."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            pixels, mode = np.array(image.convert("RGB")), image.mode
    except Exception as error:  # PIL raises many kinds, of its own among them
        raise ValueError(f"{file} cannot be read as an image ({error}); remove or replace it") from None
    if mode.startswith(("I", "F")):  # which `convert` cuts off at 255
        raise ValueError(f"{file} has more than 8 bits a channel (PIL's mode {mode}); convert it to 8 bits")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> images uint8 (N, 3, H, W) and labels int64 (N,). ValueError for what cannot be read or differs in size, or if a
    class has no images."""
    classes, tensors, shape = class_names(path), {}, None
    for part in parts(path):
        images, labels = [], []
        for label, name in enumerate(classes):
            files = image_files(path / part / name)
            if not files:
                raise ValueError(f"the class folder {path / part / name} has no images")
            for file in files:
                image = read_image(file)
                shape = shape or image.shape
                if image.shape != shape:
                    own, others = (f"{height}×{width}" for _, height, width in (image.shape, shape))
                    raise ValueError(f"{file} is {own} where the others are {others}; give one size")
                images.append(image)
                labels.append(label)
        tensors[part] = torch.stack(images), torch.tensor(labels)
    return tensors


def fingerprint(path: Path) -> str:
    """Ten hex digits that change with any file."""
    digest = hashlib.sha256()
    for name in class_names(path):
        for part in parts(path):
            for file in image_files(path / part / name):
                digest.update(f"{part}/{name}/{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:10]
