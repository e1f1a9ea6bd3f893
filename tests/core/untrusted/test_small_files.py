"""Small files that ask for much: refused within seconds and 100 MB. Controls show what they do to others' readers."""

import io
import json
import lzma
import struct
import tokenize
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.untrusted import limits
from rlhfblender_core.untrusted.archives import RefusedArchiveError, open_archive, read_member
from rlhfblender_core.untrusted.json_values import DamagedJsonError, parse_json
from rlhfblender_core.untrusted.npy import DamagedArrayError, parse_npy, read_npy_header
from rlhfblender_core.untrusted.pictures import open_picture
from rlhfblender_core.untrusted.yaml import DamagedYamlError, Tag, parse_yaml
from tests.support.hostile_files import (
    ALIASED_YAML,
    CIRCULAR_YAML,
    MERGING_YAML,
    NESTED_YAML,
    bounded,
    npy_with_header,
)


def test_merge_keys_are_counted_before_they_are_written_out() -> None:
    shorter = "\n".join(MERGING_YAML.splitlines()[:5])
    node = yaml.compose(shorter)
    yaml.SafeLoader("").flatten_mapping(node.value[-1][1])
    assert len(node.value[-1][1].value) == 9**4, "the control didn't grow: this test shows nothing"
    with bounded(), pytest.raises(DamagedYamlError, match="too many values"):
        parse_yaml(MERGING_YAML.encode())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(ALIASED_YAML, id="aliases"),
        pytest.param(CIRCULAR_YAML, id="circle"),
        pytest.param("&a {<<: *a}", id="merges itself"),
        pytest.param(NESTED_YAML, id="nested"),
        pytest.param("- " * 30_000, id="nested lists"),
        pytest.param("{a: " * 10_000, id="nested mappings"),
        pytest.param("[" + "1," * 30_000 + "]", id="many values"),
        pytest.param("? " * 20_000, id="keys of keys"),
        pytest.param("{" + ",".join(f"{n * (2**61 - 1)}: 1" for n in range(2_500)) + "}", id="colliding keys"),
        pytest.param("a" * 70_000, id="long"),
        pytest.param("a: !!timestamp x", id="no time"),
        pytest.param("? [a]\n: 1", id="list as a key"),
        pytest.param("a: *nobody", id="alias of nothing"),
        pytest.param("%YAML 9.9\n---\n", id="version"),
        pytest.param("\x00", id="control character"),
        pytest.param("a: 1\n---\nb: 2", id="two documents"),
    ],
)
def test_large_and_damaged_yaml_is_refused(text: str) -> None:
    with bounded():
        if "61 - 1" in text or "2305843009213693951: 1" in text:
            parse_yaml(text.encode())  # few enough, so that collisions don't matter
        else:
            with pytest.raises(DamagedYamlError):
                parse_yaml(text.encode())


def test_honest_yaml_with_anchors_and_merge_keys_is_read() -> None:
    text = b"base: &b {lr: 1, n: [1, 2]}\nmine: {<<: *b, lr: 2}\nsame: *b\n"
    held = parse_yaml(text + b"t: !!python/tuple [1]\nx: !!python/name:a.b ''\n")
    assert held["mine"] == {"lr": 2, "n": [1, 2]}
    assert held["same"] == held["base"]
    assert held["t"] == (1,)
    assert held["x"] == Tag("python/name:a.b")


HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n"


def test_brackets_in_an_array_header_do_not_reach_pythons_parser() -> None:
    content = npy_with_header("(" * 3_000)
    with pytest.raises(tokenize.TokenError):  # what no reader of arrays expects
        np.lib.format.read_array(io.BytesIO(content))
    with bounded(), pytest.raises(DamagedArrayError, match="no header that can be read"):
        parse_npy(content)


@pytest.mark.parametrize(
    "content",
    [
        npy_with_header(HEADER.format("<f8", "(1000000000000,)"), bytes(80)),
        npy_with_header(HEADER.format("<f8", "(99999999999999999999,)")),
        npy_with_header(HEADER.format("<f8", "(" + "1," * 100 + ")")),
        npy_with_header(HEADER.format("<f8", "(-1,)")),
        npy_with_header(HEADER.format("<f8", "(True,)")),
        npy_with_header(HEADER.format("<f8", "3")),
        npy_with_header(HEADER.format("<U999999999", "(5,)")),
        npy_with_header(HEADER.format("<U9999999999", "(1,)")),
        npy_with_header(HEADER.format("|V1000000", "(1,)")),
        npy_with_header(HEADER.format("|O", "(1,)"), b"cos\nsystem\n."),
        npy_with_header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", bytes(8)),
        npy_with_header("{'descr': '<f8', 'descr': '<f8', 'shape': (1,), }", bytes(8)),
        npy_with_header("{'descr': '<f8', 'fortran_order': 2, 'shape': (1,), }", bytes(8)),
        npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)" + " " * 60_000 + "}", bytes(8)),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUMPY\x09\x00",
        b"\x93NUM",
        b"",
    ],
    ids=range(18),
)
def test_array_headers_that_claim_what_can_not_be_are_refused(content: bytes) -> None:
    with bounded(megabytes=5), pytest.raises(DamagedArrayError):
        parse_npy(content)


@pytest.mark.parametrize("code", ["?", "i1", "<u2", ">i4", "<f2", "<f4", ">f8", "<c16", "<U3", "S2"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 1)])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_are_read_as_numpy_reads_them(code: str, shape: tuple[int, ...], version: tuple[int, int]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(code)
    for given in (array, array.copy(order="F")):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, given, version)
        found = parse_npy(stream.getvalue())
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


def test_header_of_old_python_is_read() -> None:
    header = read_npy_header(io.BytesIO(npy_with_header("{'shape': (3L, 4L), 'fortran_order': True, 'descr': '<f8'}")))
    assert header.shape == (3, 4)
    assert header.is_fortran


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" + b"[]," * 400_000 + b"[]]",
        b"[" + b"{}," * 400_000 + b"{}]",
        b"9" * 10_000,
        b'"\xff\xff"',
        b"",
        b"{",
    ],
    ids=range(8),
)
def test_large_and_damaged_json_is_refused(content: bytes) -> None:
    with bounded(), pytest.raises(DamagedJsonError):
        parse_json(content)
    with bounded(), pytest.raises(DataNotUsableError) as caught:
        parse_manifest(content, "manifests/a/1/0.json")
    assert "\n" not in str(caught.value)


def test_very_long_manifest_is_refused() -> None:
    text = json.dumps({"format_version": 1, "x": "a" * (limits.MAX_MANIFEST_BYTES + 1)}).encode()
    with pytest.raises(DataNotUsableError, match="not a manifest"):
        parse_manifest(text, "manifests/a/1/0.json")


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def overlapping() -> bytes:
    """Two names for the same bytes."""
    content = bytearray(zipped(a=bytes(1000), b=bytes(1000)))
    second = content.rindex(b"PK\x01\x02")
    content[second + 42 : second + 46] = struct.pack("<L", 0)
    return bytes(content)


def many_members() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(2_000):
            archive.writestr(str(number), b"")
    return stream.getvalue()


def long_list() -> bytes:
    """A list of members that claims to be longer than any is."""
    content = bytearray(zipped(a=b"x"))
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = struct.pack("<L", 2**30)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (zipped(a=bytes(200 * 2**20)), "zip bomb"),
        (zipped(**{str(n): bytes(40 * 2**20) for n in range(3)}), "zip bomb"),
        (overlapping(), "overlap"),
        (many_members(), "members"),
        (long_list(), "list of members"),
    ],
    ids=["one large", "several", "overlapping", "many", "long list"],
)
def test_archives_that_claim_too_much_are_refused(content: bytes, problem: str) -> None:
    with bounded(), pytest.raises(RefusedArchiveError, match=problem), open_archive(io.BytesIO(content)):
        pass


def test_member_that_is_held_must_not_be_a_bomb() -> None:
    content = zipped(a=bytes(50 * 2**20))
    with bounded(), open_archive(io.BytesIO(content)) as archive, pytest.raises(RefusedArchiveError, match="bomb"):
        read_member(archive, "a", 2**30)


def picture_bytes(image_format: str, size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, image_format)
    return stream.getvalue()


@pytest.mark.parametrize("image_format", ["TIFF", "ICO", "PPM", "TGA", "PCX", "EPS", "PDF", "SGI", "DDS", "JPEG2000"])
def test_formats_that_are_not_listed_are_no_pictures(image_format: str) -> None:
    try:
        content = picture_bytes(image_format)
    except (KeyError, OSError):
        pytest.skip("this Pillow doesn't write it")
    with pytest.raises(DataNotUsableError, match=r"it: is no picture"), open_picture(io.BytesIO(content), "it"):
        pass


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_pictures_are_opened_by_their_content(image_format: str) -> None:
    with open_picture(io.BytesIO(picture_bytes(image_format)), "it") as picture:
        assert picture.convert("RGB").size == (8, 8)


def test_pixels_are_counted_before_they_are_decoded() -> None:
    for size in ((3_000, 3_000), (9_700, 9_700), (15_000, 15_000)):
        stream = io.BytesIO()
        Image.new("1", size).save(stream, "PNG")
        with pytest.raises(DataNotUsableError, match="it: "), bounded(megabytes=5), open_picture(stream, "it"):
            pass


def test_picture_that_is_cut_off_is_named(tmp_path: Path) -> None:
    file = tmp_path / "0.png"
    file.write_bytes(picture_bytes("PNG", (200, 200))[:80])
    with pytest.raises(DataNotUsableError, match=r"0\.png: is no picture"), open_picture(file, file.name) as picture:
        picture.load()


@pytest.mark.parametrize(
    ("method", "raised"), [(zipfile.ZIP_BZIP2, OSError), (zipfile.ZIP_LZMA, lzma.LZMAError)], ids=["bzip2", "lzma"]
)
def test_methods_of_compression_that_nobody_uses_are_refused(method: int, raised: type[Exception]) -> None:
    """Their libraries say of damaged bytes what nobody expects of a zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a.npy", bytes(1000))
    content = bytearray(stream.getvalue())
    content[40:50] = b"\xff" * 10  # within the member's data
    with zipfile.ZipFile(io.BytesIO(content)) as archive, pytest.raises(raised):
        archive.read("a.npy")
    with pytest.raises(RefusedArchiveError, match="another method than deflate"), open_archive(io.BytesIO(content)):
        pass


@pytest.mark.parametrize("number", ["0x" + "f" * 60_000, ":".join(["59"] * 20_000)], ids=["hexadecimal", "in sixties"])
def test_yaml_number_that_python_writes_nowhere_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="4300 digits"):  # the control: whoever names it in a message
        str(yaml.safe_load(f"a: {number}")["a"])
    with pytest.raises(DamagedYamlError, match="very many digits"):
        parse_yaml(f"a: {number}".encode())
