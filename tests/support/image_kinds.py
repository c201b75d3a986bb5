"""Files of every kind of image that Pillow writes and reads here: formats, modes, orientations, depths and sizes."""

import io
import struct
import zlib
from functools import cache, partial

import numpy as np
from PIL import Image

SIZES = [(1, 1), (2, 90), (300, 200), (61, 1), (33, 31), (24, 20), (97, 64), (20, 24), (7, 5), (128, 180)]
ORIENTATIONS = range(1, 9)
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
LARGE = (640, 480)  # of JPEG files, which are decoded at a reduced scale


def write_image_kinds(folder, count, classes=("circle", "square", "stripes")):
    """Write images of all kinds in turn, each time with other pixels and sizes, to folder/<class>.

    Returns:
        The paths, in the order in which data sets read the folder.
    """
    kinds = list(image_kinds().items())
    for index in range(count):
        name, write = kinds[index % len(kinds)]
        place = folder / classes[(index + index // len(kinds)) % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        # Sizes shift by one in every round over the kinds, so that each kind gets each of them.
        size = SIZES[(index + 3 * (index // len(kinds))) % len(SIZES)]
        stem, _, suffix = name.rpartition(".")
        write(np.random.default_rng(index), size, place / f"{index:04d}_{stem}.{suffix}")
    return sorted(folder.glob("*/*"))


@cache
def image_kinds():
    """Return a function (random source, size, path) for each kind, by a name that ends with the suffix of its files."""
    found = {**_jpeg(), **_png(), **_tiff(), **_others()}
    return {name: write for name, write in found.items() if _is_readable(write, name)}


def _is_readable(write, name):
    """Return whether this build of Pillow writes and reads a kind."""
    file = io.BytesIO()
    try:
        write(np.random.default_rng(0), (16, 16), file, suffix=name.rpartition(".")[2])
        with Image.open(file) as image:
            image.load()
    except (OSError, KeyError, ValueError):
        return False
    return True


def picture(source, size, mode="RGB"):
    """Return a Pillow image that is smooth, as photographs are, with a little noise; alpha is of all values."""
    channels = {"1": 1, "L": 1, "I;16": 1, "I;16B": 1, "P": 3, "LA": 2, "RGBA": 4, "CMYK": 4, "PA": 4}.get(mode, 3)
    coarse = source.integers(0, 256, (3, 4, channels), dtype=np.uint8)
    planes = [Image.fromarray(coarse[:, :, c]).resize(size, Image.Resampling.BICUBIC) for c in range(channels)]
    pixels = np.stack([np.asarray(plane) for plane in planes], axis=2)
    pixels = (pixels + source.integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
    if mode.startswith("I;16"):
        wide = pixels[:, :, 0].astype(np.uint16) * 256 + source.integers(0, 256, pixels.shape[:2], dtype=np.uint16)
        return Image.fromarray(wide.astype(">u2") if mode == "I;16B" else wide)
    own = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    image = Image.merge(own, [Image.fromarray(np.ascontiguousarray(pixels[:, :, c])) for c in range(channels)])
    if mode == "CMYK":
        return Image.merge("CMYK", image.split())
    if mode == "PA":
        return image.convert("RGB").quantize(64).convert("PA")
    return image.quantize(64) if mode == "P" else image if mode == own else image.convert(mode)


def _save(source, size, file, *, mode="RGB", suffix=None, kind=None, frames=1, orientation=None, **options):
    """Write an image by Pillow, in the format of the file's name or in `kind`."""
    images = [picture(source, size, mode) for _ in range(frames)]
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif.tobytes()
    if frames > 1:
        options |= {"save_all": True, "append_images": images[1:]}
    images[0].save(file, format=kind or Image.registered_extensions()[f".{suffix or file.suffix[1:]}"], **options)


def _large(source, size, file, **options):
    _save(source, (LARGE[0] + size[0], LARGE[1] + size[1]), file, **options)


def _jpeg():
    kinds = {f"jpeg_{mode}.jpg": partial(_save, mode=mode) for mode in ("L", "RGB", "CMYK")}
    kinds |= {f"jpeg_turned_{n}.jpg": partial(_save, orientation=n) for n in ORIENTATIONS}
    kinds |= {f"jpeg_large_{n}.jpeg": partial(_large, orientation=n) for n in (1, 6, 7)}
    return kinds | {
        "jpeg_large_L.jpg": partial(_large, mode="L"), "jpeg_large_CMYK.jpg": partial(_large, mode="CMYK"),
        "jpeg_progressive.jpg": partial(_save, progressive=True), "jpeg_444.jpg": partial(_save, subsampling=0),
        "jpeg_mpo.jpg": partial(_save, kind="MPO", frames=2),
    }  # fmt: skip


def _png():
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    kinds = {f"png_{mode.replace(';', '')}.png": partial(_save, mode=mode) for mode in modes}
    kinds |= {f"png_turned_{n}.png": partial(_save, orientation=n) for n in (3, 6)}
    kinds |= {
        f"png_interlaced_{bits}_{channels}.png": partial(_write_png, bits=bits, channels=channels, is_interlaced=True)
        for bits in (8, 16) for channels in (1, 2, 3, 4)
    }  # fmt: skip
    return kinds | {
        "png_16_bits_RGB.png": partial(_write_png, bits=16, channels=3, is_interlaced=False),
        "png_16_bits_RGBA.png": partial(_write_png, bits=16, channels=4, is_interlaced=False),
        "png_transparent_colour.png": partial(_save, mode="P", transparency=3),
        "png_transparent_colours.png": partial(_save, mode="P", transparency=bytes(range(0, 256, 4))),
        "png_transparent_L.png": partial(_save, mode="L", transparency=100),
        "png_transparent_RGB.png": partial(_save, transparency=(90, 90, 90)),
        "png_frames.png": partial(_save, frames=3),
    }  # fmt: skip


def _tiff():
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B")
    kinds = {f"tiff_{mode.replace(';', '')}.tif": partial(_save, mode=mode) for mode in modes}
    kinds |= {f"tiff_turned_{n}.tiff": partial(_save, orientation=n) for n in ORIENTATIONS}
    kinds |= {
        f"tiff_{mode}_turned.tif": partial(_save, mode=mode, orientation=6) for mode in ("L", "P", "RGBA", "CMYK")
    }
    packings = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    kinds |= {f"tiff_{packing}.tif": partial(_save, compression=packing) for packing in packings}
    return kinds | {
        "tiff_group4.tif": partial(_save, mode="1", compression="group4"),
        "tiff_pages.tif": partial(_save, frames=2),
        "tiff_16_bits_turned.tif": partial(_save, mode="I;16", orientation=8),
        "tiff_lzw_RGBA_turned.tif": partial(_save, mode="RGBA", orientation=5, compression="tiff_lzw"),
    }  # fmt: skip


def _others():
    modes = {
        "bmp": ("1", "L", "P", "RGB", "RGBA"), "webp": ("RGB", "RGBA"), "tga": ("1", "L", "LA", "P", "RGB", "RGBA"),
        "pcx": ("1", "L", "P", "RGB"), "sgi": ("L", "RGB", "RGBA"), "jp2": ("L", "LA", "RGB", "RGBA", "I;16"),
        "avif": ("RGB", "RGBA"), "dib": ("RGB",), "ico": ("RGBA",), "icns": ("RGBA",),
        "dds": ("L", "RGB", "RGBA"), "qoi": ("RGB", "RGBA"), "pbm": ("1",), "pgm": ("L", "I;16"), "ppm": ("RGB",),
        "gif": ("L", "P", "RGB"),
    }  # fmt: skip
    kinds = {
        f"{suffix}_{mode.replace(';', '')}.{suffix}": partial(_save, mode=mode)
        for suffix, found in modes.items() for mode in found
    }  # fmt: skip
    return kinds | {
        "webp_lossless.webp": partial(_save, mode="RGBA", lossless=True), "webp_frames.webp": partial(_save, frames=2),
        "webp_turned.webp": partial(_save, orientation=6), "avif_turned.avif": partial(_save, orientation=6),
        "gif_frames.gif": partial(_save, mode="P", frames=3),
        "gif_transparent.gif": partial(_save, mode="P", transparency=5),
        "tga_packed.tga": partial(_save, compression="tga_rle"),
    }  # fmt: skip


def _write_png(source, size, file, *, bits, channels, is_interlaced, suffix=None):
    """Write a PNG as Pillow does not: with 16 bits per channel, or its pixels in the seven passes of Adam7."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    values = np.asarray(picture(source, size, mode)).reshape(size[1], size[0], channels)
    if bits == 16:
        values = (values.astype(np.uint16) * 256 + source.integers(0, 256, values.shape, dtype=np.uint16)).astype(">u2")
    passes = ADAM7 if is_interlaced else [(0, 0, 1, 1)]
    rows = [
        b"\0" + row.tobytes() for left, top, right, down in passes for row in values[top::down, left::right] if row.size
    ]
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", *size, bits, color, 0, 0, int(is_interlaced))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    if hasattr(file, "write_bytes"):
        file.write_bytes(content)
    else:
        file.write(content)
