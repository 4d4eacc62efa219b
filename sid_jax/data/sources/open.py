"""Chooses a source of pairs by its name."""

from sid_jax.data.pairs import PairSource
from sid_jax.errors import UserError


def open_pairs(
    source: str,
    *,
    split: str = "train",
    data_dir: str = "",
    image: str = "image",
    caption: str = "",
    label: str | None = None,
) -> PairSource:
    """The pairs that a name stands for.

    Args:
      source: "tfds:NAME", a dataset of tensorflow_datasets; a .tar file or a pattern of them (WebDataset); the folder
        of a latent cache; a .zip file with labels; or a folder of images, with captions or with labels.
      split: of tensorflow_datasets, which the following arguments are for as well.
      data_dir: where its data is; empty: the library's default.
      image: the feature with the image.
      caption: the feature with the caption; empty: the only feature that is text.
      label: the feature with the class; empty: the only one that is a class, if there is one; None: captions are
        wanted, and no labels. It says so of a folder too.

    Raises:
      UserError: there are no such pairs.
    """
    from sid_jax.data.sources import image_folder, image_zip, latents, webdataset
    from sid_jax.data.sources import tfds as tfds_pairs

    if not source:
        raise UserError("config key real.source is empty: the GAN term needs real images")
    if source.startswith("tfds:"):
        name = source.removeprefix("tfds:")
        return tfds_pairs.TfdsPairs(name, split, data_dir, image, caption, label)
    if source.endswith(".tar"):
        return webdataset.WebDataset(source)
    if latents.is_cache(source):
        return latents.LatentCache(source)
    if source.endswith(".zip") or label is not None:
        return image_zip.ImageZip(source)
    return image_folder.ImageFolder(source)
