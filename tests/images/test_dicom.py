"""DICOM files with every trait that the reader promises to get right, against values known by design."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from image_makers import AXIAL, dicom, save
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    RLELossless,
)

from fewlabel.images import read_file
from fewlabel.images.quiet import muted_stderr
from fewlabel.types import UnreadableImage

GREY = np.arange(20, dtype=np.uint16).reshape(4, 5) * 100


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "image"


def item(**elements: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def lut(descriptor: list[int], entries: list[int]) -> Dataset:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", descriptor)
    table.add_new("LUTData", "US", entries)
    table.ModalityLUTType = "OD"
    return table


def said(image, word: str) -> bool:
    return any(word in line for line in image.provenance)


@settings(max_examples=60, deadline=None)
@given(
    pixels=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)
    ),
    slope=st.sampled_from([1, 2, -1, 0.5, 3.774114]),
    intercept=st.sampled_from([0, -1024, 17, 0.25]),
)
def test_any_pixels_come_back_rescaled(tmp_path_factory, pixels, slope, intercept):
    path = tmp_path_factory.mktemp("dicom") / "x"
    save(dicom(pixels, RescaleSlope=slope, RescaleIntercept=intercept), path)
    image = read_file(path)
    expected = pixels.astype(np.float64) * slope + intercept
    np.testing.assert_allclose(image.pixels[0], expected, rtol=1e-6, atol=1e-6)
    whole = float(slope).is_integer() and float(intercept).is_integer()
    assert image.pixels.dtype.kind in ("iu" if whole else "f")
    assert image.pixels.dtype.name in ("uint8", "uint16", "int16", "int32", "float32")


def test_ct_in_hounsfield_units_with_its_window_recorded_only(target):
    stored = np.array([[0, 1024, 3000]], np.int16)
    save(
        dicom(
            stored,
            Modality="CT",
            RescaleSlope=1,
            RescaleIntercept=-1024,
            WindowCenter=[40, -600],
            WindowWidth=[400, 1500],
        ),
        target,
    )
    image = read_file(target)
    assert image.pixels.dtype == np.int16
    assert image.pixels.tolist() == [[[-1024, 0, 1976]]]
    assert image.display_range == (40 - 0.5 - 199.5, 40 - 0.5 + 199.5)
    assert said(image, "center -600 width 1500")
    assert said(image, "not applied")


@pytest.mark.parametrize(("function", "low", "high"), [("LINEAR", 0, 99), ("LINEAR_EXACT", 0, 100)])
def test_window_edges_follow_the_voi_function(target, function, low, high):
    save(dicom(GREY, WindowCenter=50, WindowWidth=100, VOILUTFunction=function), target)
    assert read_file(target).display_range == (low, high)


def test_monochrome1_is_inverted_within_the_stored_range_and_so_is_its_window(target):
    save(
        dicom(
            GREY,
            bits=12,
            PhotometricInterpretation="MONOCHROME1",
            Modality="DX",
            WindowCenter=1000.5,
            WindowWidth=1001,
        ),
        target,
    )
    image = read_file(target)
    assert (image.pixels[0] == 4095 - GREY).all()
    assert image.display_range == (4095 - 1500, 4095 - 500)
    assert said(image, "4095 - x")


def test_monochrome1_with_sign_and_rescale(target):
    stored = np.array([[-2048, -1, 2047]], np.int16)
    save(
        dicom(
            stored,
            bits=12,
            PhotometricInterpretation="MONOCHROME1",
            RescaleSlope=2,
            RescaleIntercept=10,
            WindowCenter=10.5,
            WindowWidth=101,
        ),
        target,
    )
    image = read_file(target)
    assert image.pixels[0].tolist() == [[2 * 2047 + 10, 2 * 0 + 10, 2 * -2048 + 10]]
    # y = 2 x + 10 and x' = -1 - x, so y' = 18 - y: the window (-40, 60) becomes (-42, 58)
    assert image.display_range == (-42, 58)


def test_monochrome1_leaves_hounsfield_units_alone(target):
    save(
        dicom(
            GREY,
            PhotometricInterpretation="MONOCHROME1",
            Modality="CT",
            RescaleIntercept=-1024,
            RescaleSlope=1,
        ),
        target,
    )
    image = read_file(target)
    assert (image.pixels[0] == GREY.astype(int) - 1024).all()
    assert said(image, "drawing only")


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_garbage_above_bits_stored_is_dropped(target, dtype):
    values = np.array([[0, 5, 2047, 100]]).astype(dtype)
    if dtype == np.int16:
        values[0, 3] = -100
    dirty = ((values & 0x0FFF) | np.array([[0x5000, 0x7000, 0x1000, 0x3000]])).astype(dtype)
    save(dicom(dirty, bits=12), target)
    assert read_file(target).pixels[0].tolist() == values.tolist()


def test_high_bit_above_the_lowest_position(target):
    values = np.array([[1, 2, 4095]], np.uint16)
    save(dicom((values << 4) | 7, bits=12, HighBit=15), target)
    assert read_file(target).pixels[0].tolist() == values.tolist()


def test_padding_value_and_range_are_masked_before_the_rescale(target):
    stored = np.array([[-2000, -1995, 10, 20]], np.int16)
    save(dicom(stored, PixelPaddingValue=-2000, RescaleSlope=1, RescaleIntercept=-1024), target)
    assert read_file(target).valid.tolist() == [[False, True, True, True]]
    save(dicom(stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990), target)
    assert read_file(target).valid.tolist() == [[False, False, True, True]]
    save(dicom(stored, PixelPaddingValue=-1), target)
    assert read_file(target).valid is None


def test_padding_is_masked_in_inverted_images_and_left_out_of_the_display_range(target):
    stored = np.full((40, 40), 1000, np.uint16)
    stored[:20] = 65535
    stored[20] = 900
    save(
        dicom(stored, PhotometricInterpretation="MONOCHROME1", Modality="CR", PixelPaddingValue=65535), target
    )
    image = read_file(target)
    assert not image.valid[:20].any()
    assert image.valid[20:].all()
    assert image.display_range[0] >= 65535 - 1000


def test_modality_lut(target):
    table = lut([4, 10, 16], [0, 100, 1000, 40000])
    dataset = dicom(np.array([[5, 10, 12, 99]], np.uint16), ModalityLUTSequence=Sequence([table]))
    save(dataset, target)
    assert read_file(target).pixels[0].tolist() == [[0, 0, 1000, 40000]]
    dataset.PhotometricInterpretation = "MONOCHROME1"
    save(dataset, target)
    assert read_file(target).pixels[0].tolist() == [[65535, 65535, 64535, 25535]]


def test_voi_lut_is_recorded_by_its_input_range(target):
    table = lut([256, 100, 8], list(range(256)))
    save(dicom(GREY, VOILUTSequence=Sequence([table])), target)
    image = read_file(target)
    assert (image.pixels[0] == GREY).all()
    assert image.display_range == (100, 355)


def test_palette_becomes_colour_and_a_grey_palette_one_channel(target):
    indices = np.arange(4, dtype=np.uint8).reshape(2, 2)
    tables = {"Red": [0, 255, 10, 20], "Green": [0, 0, 10, 20], "Blue": [0, 1, 10, 20]}
    dataset = dicom(indices, PhotometricInterpretation="PALETTE COLOR")
    for colour, entries in tables.items():
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        data = np.array(entries, "<u2") << 8
        setattr(dataset, f"{colour}PaletteColorLookupTableData", data.tobytes())
    save(dataset, target)
    image = read_file(target)
    assert image.pixels.dtype == np.uint8
    assert image.pixels[:, 0, 1].tolist() == [255, 0, 1]
    dataset.GreenPaletteColorLookupTableData = dataset.RedPaletteColorLookupTableData
    dataset.BluePaletteColorLookupTableData = dataset.RedPaletteColorLookupTableData
    save(dataset, target)
    assert read_file(target).pixels.tolist() == [[[0, 255], [10, 20]]]


def test_ybr_becomes_rgb_and_equal_channels_become_grey(target):
    grey_ybr = np.zeros((2, 2, 3), np.uint8)
    grey_ybr[..., 0], grey_ybr[..., 1:] = 77, 128
    save(dicom(grey_ybr, colour=True, PhotometricInterpretation="YBR_FULL"), target)
    image = read_file(target)
    assert image.pixels.tolist() == [[[77, 77], [77, 77]]]
    red = np.zeros((2, 2, 3), np.uint8)
    red[...] = (76, 85, 255)
    save(dicom(red, colour=True, PhotometricInterpretation="YBR_FULL"), target)
    image = read_file(target)
    assert image.pixels.shape == (3, 2, 2)
    assert abs(image.pixels[:, 0, 0].astype(int) - [254, 0, 0]).max() <= 1


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_native_transfer_syntaxes(target, syntax):
    dataset = dicom(GREY)
    dataset.file_meta.TransferSyntaxUID = syntax
    save(dataset, target)
    assert (read_file(target).pixels[0] == GREY).all()


def test_big_endian(target):
    dataset = dicom(GREY)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = GREY.astype(">u2").tobytes()
    save(dataset, target)
    image = read_file(target)
    assert (image.pixels[0] == GREY).all()
    assert image.pixels.dtype.isnative


@pytest.mark.parametrize("implicit", [True, False])
def test_without_preamble_and_meta(target, implicit):
    dataset = dicom(GREY)
    buffer = io.BytesIO()
    del dataset.file_meta
    dataset.preamble = None
    pydicom.dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=True)
    target.write_bytes(buffer.getvalue())
    image = read_file(target)
    assert (image.pixels[0] == GREY).all()
    assert said(image, "no transfer syntax is stated")


def jpeg(pixels: np.ndarray, syntax: str, colour: bool = False, bits: int = 0, **options: object):
    from imagecodecs import jpeg8_encode

    dataset = dicom(pixels, bits=bits, colour=colour)
    dataset.file_meta.TransferSyntaxUID = syntax
    unsigned = pixels.astype(np.int64) & (2**bits - 1 if bits else 0xFFFF)
    stored = unsigned.astype(np.uint16 if pixels.dtype.itemsize == 2 else np.uint8)
    frames = stored if "NumberOfFrames" in dataset else [stored]
    coded = [jpeg8_encode(frame, bitspersample=bits or None, **options) for frame in frames]
    dataset.PixelData = encapsulate(coded)
    dataset["PixelData"].is_undefined_length = True
    return dataset


def test_rle(target):
    dataset = dicom(GREY)
    dataset.compress(RLELossless)
    save(dataset, target)
    assert (read_file(target).pixels[0] == GREY).all()


def test_twelve_bit_jpeg(target):
    ramp = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (64, 1))
    save(jpeg(ramp, JPEGExtended12Bit, bits=12, level=100), target)
    assert np.abs(read_file(target).pixels[0].astype(int) - ramp).max() <= 16


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(
    ("bits", "dtype"), [(8, np.uint8), (12, np.uint16), (16, np.uint16), (16, np.int16), (12, np.int16)]
)
def test_lossless_jpeg_of_every_predictor_and_depth(target, predictor, bits, dtype):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if dtype == np.int16 else (0, 2**bits)
    pixels = np.random.default_rng(0).integers(low, high, (2, 9, 7)).astype(dtype)
    save(jpeg(pixels, JPEGLossless, bits=bits, lossless=True, predictor=predictor), target)
    image = read_file(target)
    assert image.pixels.dtype == dtype
    assert (image.pixels[0] == pixels).all()


def test_lossless_jpeg_in_colour(target):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    dataset = jpeg(pixels, JPEGLossless, colour=True, lossless=True, colorspace="RGB", outcolorspace="RGB")
    save(dataset, target)
    assert (read_file(target).pixels == np.moveaxis(pixels, -1, 0)).all()
    dataset.PhotometricInterpretation = "YBR_FULL"
    save(dataset, target)
    expected = convert_color_space(pixels, "YBR_FULL", "RGB")
    assert (read_file(target).pixels == np.moveaxis(expected, -1, 0)).all()


def test_lossless_jpeg_of_another_size_than_stated(target):
    dataset = jpeg(GREY, JPEGLossless, bits=16, lossless=True)
    dataset.Rows = 8
    save(dataset, target)
    with pytest.raises(UnreadableImage, match=r"not 1 of \(8, 5\) as stated"):
        read_file(target)


def frame(height: float, **elements: object) -> Dataset:
    return item(
        PlanePositionSequence=Sequence([item(ImagePositionPatient=[0, 0, height])]),
        PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=AXIAL)]),
        PixelMeasuresSequence=Sequence([item(PixelSpacing=[0.5, 0.75])]),
        **elements,
    )


def test_enhanced_frames_are_sorted_and_rescaled_by_their_own_numbers(target):
    pixels = np.stack([np.full((2, 3), value, np.uint16) for value in (30, 10, 20)])
    groups = [
        frame(
            height,
            PixelValueTransformationSequence=Sequence(
                [item(RescaleSlope=slope, RescaleIntercept=0, RescaleType="US")]
            ),
        )
        for height, slope in ((3.0, 1), (-1.0, 2), (1.0, 3))
    ]
    save(dicom(pixels, PerFrameFunctionalGroupsSequence=Sequence(groups)), target)
    image = read_file(target)
    assert image.pixels.shape == (1, 3, 2, 3)
    assert image.pixels[0, :, 0, 0].tolist() == [20.0, 60.0, 30.0]
    assert image.spacing_mm == (2.0, 0.5, 0.75)
    assert image.affine @ [0, 0, 2, 1] == pytest.approx([0, 0, 3, 1])
    assert image.affine @ [1, 0, 0, 1] == pytest.approx([-0.75, 0, -1, 1])


def test_frames_without_positions_keep_their_order(target):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    save(dicom(pixels, PixelSpacing=[1, 1]), target)
    image = read_file(target)
    assert (image.pixels[0] == pixels).all()
    assert image.spacing_mm is None
    assert said(image, "order of the file")


def test_colour_frames(target):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 3), np.uint8)
    save(dicom(pixels, colour=True), target)
    assert (read_file(target).pixels == np.moveaxis(pixels, -1, 0)).all()


def test_float_pixels_and_values_that_are_not_finite(target):
    dataset = dicom(GREY)
    del dataset.PixelData
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    values[0, 0] = np.nan
    dataset.FloatPixelData, dataset.BitsAllocated = values.tobytes(), 32
    save(dataset, target)
    image = read_file(target)
    assert image.pixels.dtype == np.float32
    assert image.pixels[0, 0, 0] == 1.0
    assert not image.valid[0, 0]
    assert image.valid.sum() == 19


def test_facts_of_the_header(target):
    save(
        dicom(
            GREY,
            Modality="DX",
            PatientID=" 0042 ",
            ViewPosition="PA",
            ImagerPixelSpacing=[0.2, 0.1],
            PatientAge="018M",
            PatientSex="F",
            BodyPartExamined="CHEST",
            ImageLaterality="L",
            Manufacturer="M",
            KVP=80,
        ),
        target,
    )
    image = read_file(target)
    assert (image.patient_id, image.study_id, image.series_id, image.view) == (
        "0042",
        "1.2.3",
        "1.2.3.4",
        "PA",
    )
    assert image.spacing_mm == (0.2, 0.1)
    assert said(image, "ImagerPixelSpacing")
    assert image.attributes == {
        "age_years": 1.5,
        "sex": "F",
        "body_part": "CHEST",
        "laterality": "L",
        "manufacturer": "M",
        "kvp": 80.0,
    }


def test_age_from_the_birth_date(target):
    save(dicom(GREY, PatientBirthDate="19500115", StudyDate="20200715"), target)
    assert read_file(target).attributes["age_years"] == 70.5


def test_rescale_slope_of_zero_is_ignored_with_a_warning(target):
    save(dicom(GREY, RescaleSlope=0, RescaleIntercept=5), target)
    image = read_file(target)
    assert (image.pixels[0] == GREY).all()
    assert "slope is 0" in image.warnings[0]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Modality": "SEG"}, "segmentation"),
        ({"Modality": "RTDOSE"}, "dose"),
        ({"NumberOfFrames": 10}, "cut short: 40 of 400 bytes"),
        ({"Rows": 60000, "Columns": 60000}, "more than the limit"),
        ({"SamplesPerPixel": 2}, "2 samples per pixel"),
        ({"BitsStored": 99}, "99"),
    ],
)
def test_what_cannot_be_read_gives_its_true_reason(target, elements, reason):
    save(dicom(GREY, **elements), target)
    with pytest.raises(UnreadableImage, match=reason):
        read_file(target)


def test_an_image_header_without_pixels_and_an_object_without_image(target):
    dataset = dicom(GREY)
    del dataset.PixelData
    save(dataset, target)
    with pytest.raises(UnreadableImage, match="holds no pixel data"):
        read_file(target)
    del dataset.Rows
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    save(dataset, target)
    with pytest.raises(UnreadableImage, match="RT Structure Set Storage"):
        read_file(target)


def test_video_is_named(target):
    dataset = dicom(GREY)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    dataset.PixelData = encapsulate([b"\0" * 10])
    dataset["PixelData"].is_undefined_length = True
    save(dataset, target)
    with pytest.raises(UnreadableImage, match=r"MPEG-4.*no decoder"):
        read_file(target)


def test_nothing_leaks_to_the_terminal(target, capfd, recwarn):
    dataset = dicom(GREY, PatientID="P" * 80, StudyInstanceUID="1.2.3")
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + b"\x11" * 60])
    dataset["PixelData"].is_undefined_length = True
    save(dataset, target)
    recwarn.clear()
    capfd.readouterr()
    with pytest.raises(UnreadableImage, match="damaged"):
        read_file(target)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_value_that_breaks_its_type_is_one_sentence(target):
    save(dicom(GREY), target)
    content = target.read_bytes()
    rows = content.index(b"\x28\0\x10\0US\x02\0")
    target.write_bytes(content[: rows + 6] + b"\x03" + content[rows + 7 :])
    with pytest.raises(UnreadableImage) as caught:
        read_file(target)
    assert "DICOM header is broken" in str(caught.value)
    assert "Instead received" not in str(caught.value)


def test_a_file_cut_in_its_compressed_pixels(target):
    dataset = dicom(GREY)
    dataset.compress(RLELossless)
    save(dataset, target)
    target.write_bytes(target.read_bytes()[:-20])
    with pytest.raises(UnreadableImage, match="the file is cut short"):
        read_file(target)


def test_gdcm_which_may_abort_the_process_is_never_asked(target):
    save(jpeg(GREY.astype(np.uint8), JPEGBaseline8Bit, level=100), target)
    assert said(read_file(target), "with pillow")


def test_what_decoders_write_to_descriptor_2_is_muted_and_then_heard_again(capfd):
    with muted_stderr(), muted_stderr():
        os.write(2, b"from a C library")
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"
