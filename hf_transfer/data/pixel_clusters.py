"""The colours that an image becomes for Image-GPT: clusters of those of the training pixels.

    c_1 ... c_K = argmin sum over pixels of min over k of |colour - c_k|^2   (k-means)

They are kept in transformers' image processor of Image-GPT, which is saved with the model.

Paper: Chen et al., "Generative Pretraining from Pixels", ICML 2020, https://proceedings.mlr.press/v119/chen20s.html:
512 clusters and 32x32 pixels as released.
"""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from sklearn.cluster import MiniBatchKMeans
from transformers import ImageGPTImageProcessorPil

from hf_transfer.data.holes import row_name
from hf_transfer.data.images import read_image, undecoded
from hf_transfer.data.pixel_tokens import COLOURS
from hf_transfer.functional.keyword_checks import require_positive

MOST_PIXELS = 200_000
MOST_IMAGES = 2_000


def pixel_processor(
    rows: Dataset, column: str, clusters: int = 512, size: int = 32, seed: int = 0
) -> ImageGPTImageProcessorPil:
    """The image processor whose colours are clusters of those of random training pixels.

    Where the pixels have fewer colours than asked for, these are the clusters.

    Args:
        rows: training images.
        column: that holds them.
        clusters: K, at most so many colours.
        size: height and width that images are resized to.
        seed: of the draw of images and pixels, and of k-means.

    Raises:
        ValueError: a number is not positive, or there are fewer than two colours.
    """
    require_positive(clusters=clusters - 1, size=size)
    generator, images = np.random.default_rng(seed), undecoded(rows, column)
    chosen = np.sort(generator.permutation(len(images))[:MOST_IMAGES])
    plain = ImageGPTImageProcessorPil(do_color_quantize=False, size={"height": size, "width": size})
    pictures = [
        read_image(images[int(place)][column], COLOURS, row_name(images, int(place), column)) for place in chosen
    ]
    pixels = np.asarray(plain(pictures)["pixel_values"]).transpose(0, 2, 3, 1).reshape(-1, COLOURS)
    pixels = pixels[generator.permutation(len(pixels))[:MOST_PIXELS]]
    colours = np.unique(pixels, axis=0)
    if len(colours) < 2:
        raise ValueError(f"the pictures of `{column}` are all of one colour: there is nothing to predict.")
    if len(colours) > clusters:
        colours = MiniBatchKMeans(clusters, random_state=seed, n_init=3).fit(pixels).cluster_centers_
    return ImageGPTImageProcessorPil(clusters=colours, size={"height": size, "width": size})
