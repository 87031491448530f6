"""The example of a user's folder: what is in it comes in again, and its useless files do not."""

import imageio.v3 as iio
import numpy as np
import pytest

from lusbook import example
from lusbook.imports import import_folder
from lusbook.loading import load_cohorts
from lusbook.phantom import simulate
from lusbook.settings import make_settings


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The example with fewer frames, and what an import makes of it."""
    place = tmp_path_factory.mktemp("example")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "PLANS", {"covid": ((1,), (4,), (2,)), "cap": ((1,), (1,), (1,))})
        folder = example.write_example(place / "clinic")
    return folder, *import_folder(folder, place / "out")


def test_every_format_comes_in_with_its_masks(imported):
    folder, out, table, _ = imported
    assert table["file"].tolist() == [
        *("cap/dee/1.jpg", "cap/eve/1.tif", "cap/flo/1.png", "covid/ann/1.png"),
        *("covid/bob/clip.mp4", "covid/bob/clip.mp4", "covid/cy/exam.dcm", "covid/cy/exam.dcm"),
    ]
    assert table["b_lines"].all()
    cohorts = {
        "covid": simulate("covid", plan=((1,), (4,), (2,)), image_size=144, diversity=0.3, consistency=0.9),
        "cap": simulate("cap", plan=((1,), (1,), (1,)), image_size=144, diversity=0.8, consistency=0.5),
    }
    drawn = [cohorts["cap"].masks[k] for k in range(3)] + [cohorts["covid"].masks[k] for k in (0, 1, 4, 5, 6)]
    for row, mask in zip(table.itertuples(), drawn, strict=True):
        rows, columns = np.nonzero(mask)
        found = iio.imread(out / row.mask) > 0
        assert found.sum() == pytest.approx(mask.sum(), rel=0.05)
        assert np.ptp(np.nonzero(found)[0]) == pytest.approx(np.ptp(rows), abs=2)
        assert np.ptp(np.nonzero(found)[1]) == pytest.approx(np.ptp(columns), abs=2)
    assert table.set_index("file")["mm_per_pixel"].dropna().tolist() == pytest.approx([example.MM_PER_PIXEL] * 2)


def test_useless_files_are_left_out(imported):
    *_, left_out = imported
    assert left_out["file"].tolist() == [
        *("cap/dee/gone.json", "cap/eve/4.tif", "cap/eve/5.tif", "cap/eve/masks/4.png", "cap/flo/notes.txt"),
        *("covid/ann/16-bit.png", "covid/ann/doppler.png", "covid/bob/clip.mp4", "covid/bob/cut.mp4"),
        *("covid/cy/letter.dcm", "covid/loose.png"),
    ]


def test_the_name_is_burned_in_and_gone_afterwards(imported):
    folder, out, table, _ = imported
    text = (slice(4, 30), slice(4, 66))
    assert (iio.imread(folder / "covid" / "ann" / "1.png")[text] > 200).sum() > 100
    assert example.NAME.encode() in (folder / "covid" / "cy" / "exam.dcm").read_bytes()
    for row in table.itertuples():
        image = iio.imread(out / row.image)
        assert max(image.shape) <= 144
        assert image[:10, :20].max() == 0  # beside the top of the fan, where the text would be
    assert not any(example.NAME.encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_a_study_takes_it(imported):
    _, out, *_ = imported
    cohorts = load_cohorts(make_settings("smoke", cohorts=str(out / "manifest.csv")))
    assert {name: len(cohort) for name, cohort in cohorts.items()} == {"covid": 5, "cap": 3}
    assert all(cohort.masks.any(axis=(1, 2)).all() for cohort in cohorts.values())
