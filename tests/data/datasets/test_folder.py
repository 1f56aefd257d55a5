import os
import re
from pathlib import Path

import pytest
from PIL import Image

from cvkit.data import FolderDataset, from_folder, write_shapes
from cvkit.errors import ArgumentError, CvkitWarning, DataError, ImageError, UnknownNameError
from cvkit.transforms import small_image_train


@pytest.fixture
def shapes(tmp_path):
    return write_shapes(tmp_path / "shapes", per_class=4, size=16)


def test_the_folder_is_the_label_in_a_fixed_order(shapes):
    data = FolderDataset(shapes)
    assert data.classes == ["circle", "square", "triangle"]
    assert data.targets == [0] * 4 + [1] * 4 + [2] * 4
    assert data.paths[0] == "circle/0000.png"
    assert list(data.paths) == sorted(data.paths)
    image, target = data[5]
    assert (image.mode, image.size, target) == ("RGB", (16, 16), 1)


def test_images_in_deeper_folders_count_and_hidden_ones_do_not(shapes):
    (shapes / "circle" / "more").mkdir()
    Image.new("RGB", (4, 4)).save(shapes / "circle" / "more" / "X.JPG")
    (shapes / "circle" / ".thumbnails").mkdir()
    Image.new("RGB", (4, 4)).save(shapes / "circle" / ".thumbnails" / "x.png")
    Image.new("RGB", (4, 4)).save(shapes / "circle" / ".x.png")
    (shapes / ".ipynb_checkpoints").mkdir()
    (shapes / "circle" / "notes.txt").write_text("no image")
    data = FolderDataset(shapes)
    assert data.classes == ["circle", "square", "triangle"]
    assert list(data.paths).count("circle/more/X.JPG") == 1
    assert len(data) == 13


def test_the_training_classes_number_a_validation_set_that_lacks_one(shapes, tmp_path):
    train = FolderDataset(shapes)
    val = FolderDataset(write_shapes(tmp_path / "val", 2, 16, classes=("square", "triangle")), classes=train.classes)
    assert val.classes == train.classes
    assert val.targets == [1, 1, 2, 2]


def test_a_folder_that_the_training_classes_lack_is_named(shapes, tmp_path):
    val = write_shapes(tmp_path / "val", 2, 16, classes=("square", "star"))
    with pytest.raises(DataError, match="holds folders that are no known class: star"):
        FolderDataset(val, classes=FolderDataset(shapes).classes)


def test_an_empty_class_is_named_with_what_lies_there(shapes):
    (shapes / "oval").mkdir()
    (shapes / "oval" / "list.csv").write_text("")
    with pytest.raises(DataError, match=r"the class folder .*oval holds no image\n  got: 1 entries, e\.g\. list\.csv"):
        FolderDataset(shapes)


def test_a_missing_directory_says_what_is_there_instead(shapes):
    with pytest.raises(DataError, match=r"there is no directory .*shape\n  got: .* holds \['shapes'\]"):
        FolderDataset(shapes.parent / "shape")


def test_a_directory_without_class_folders_is_refused(shapes):
    with pytest.raises(DataError, match="holds no class folder"):
        FolderDataset(shapes / "circle")


def test_links_to_folders_and_out_of_the_root_are_not_followed_and_a_warning_says_so(shapes, tmp_path):
    outside = write_shapes(tmp_path / "outside", 3, 16, classes=("star",))
    os.symlink(outside / "star", shapes / "star")
    os.symlink(outside / "star", shapes / "circle" / "linked")
    os.symlink(outside / "star" / "0000.png", shapes / "circle" / "star.png")
    os.symlink(shapes / "circle" / "0000.png", shapes / "circle" / "again.png")
    with pytest.warns(CvkitWarning) as caught:
        data = FolderDataset(shapes)
    assert [str(one.message).partition(", e.g. ")[0] for one in caught] == [
        f"3 links in {shapes} are left out",
        f"{shapes} lists 1 images more than once",
    ]
    assert data.classes == ["circle", "square", "triangle"]
    assert [path for path in data.paths if path.startswith("circle")][-1] == "circle/again.png"
    assert len(data) == 13


def test_a_folder_that_cannot_be_read_is_an_error_and_not_an_empty_one(shapes, monkeypatch):
    scan = os.scandir

    def refusing(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    (shapes / "circle" / "deep").mkdir()
    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"the folder .*deep cannot be read\n  got: PermissionError: Permission denied"):
        FolderDataset(shapes)


def test_a_class_that_comes_twice_would_count_its_images_twice(shapes):
    with pytest.raises(ArgumentError, match="classes cannot be used"):
        FolderDataset(shapes, classes=["circle", "circle", "square", "triangle"])
    with pytest.raises(ArgumentError, match=r"fix: classes=\['circle'\]"):
        FolderDataset(shapes, classes="circle")


def test_other_endings_may_count_as_images(shapes):
    (shapes / "circle" / "0000.png").rename(shapes / "circle" / "0000.JFIF")
    assert len(FolderDataset(shapes)) == 11
    assert list(FolderDataset(shapes, classes=["circle", "square", "triangle"], extensions=[".jfif"]).paths) == [
        "circle/0000.JFIF"
    ]
    for wrong in (["jfif"], ".jfif", []):
        with pytest.raises(ArgumentError, match="extensions cannot be used"):
            FolderDataset(shapes, extensions=wrong)


def test_an_image_by_another_ending_than_its_format_is_decoded(tmp_path):
    (tmp_path / "ants").mkdir()
    Image.new("P", (4, 4)).save(tmp_path / "ants" / "imageNotFound.gif")
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "ants" / "png.jpg", "PNG")
    data = FolderDataset(tmp_path)
    assert [data[i][0].mode for i in range(2)] == ["RGB", "RGB"]
    assert data[1][0].getpixel((0, 0)) == (9, 9, 9)


def test_a_damaged_file_is_named_with_its_index(shapes):
    path = shapes / "square" / "0001.png"
    path.write_bytes(path.read_bytes()[:100])
    data = FolderDataset(shapes)
    with pytest.raises(ImageError, match=r"sample 5: cannot decode the image .*square/0001\.png"):
        data[5]
    found = data.verify()
    assert (found.count, list(found.bad), bool(found)) == (12, ["square/0001.png"], False)
    assert str(found).splitlines()[0] == "12 files, 1 of them bad"


def test_the_fingerprint_is_stable_and_sees_every_change(shapes, tmp_path):
    first = FolderDataset(shapes).fingerprint
    assert FolderDataset(shapes).fingerprint == first
    assert FolderDataset(shapes, classes=["triangle", "square", "circle"]).fingerprint != first
    (shapes / "circle" / "0000.png").rename(shapes / "circle" / "zero.png")
    assert FolderDataset(shapes).fingerprint != first


def test_from_folder_takes_train_and_val(tmp_path):
    write_shapes(tmp_path / "train", 4, 16)
    write_shapes(tmp_path / "val", 2, 16, seed=1)
    data = from_folder(tmp_path, size=16, batch_size=4)
    assert data.classes == data.train.classes == data.val.classes == ["circle", "square", "triangle"]
    assert (len(data.train.dataset), len(data.val.dataset), data.train.shuffle, data.val.shuffle) == (
        12,
        6,
        True,
        False,
    )
    assert data.train.transform.evaluation() == data.val.transform


def test_from_folder_splits_a_share_off_each_class(shapes):
    data = from_folder(shapes, size=16, batch_size=4, val=0.25)
    assert sorted(data.val.dataset.targets) == [0, 1, 2]
    assert not set(data.train.dataset.paths) & set(data.val.dataset.paths)


def test_from_folder_without_a_train_folder_says_how_to_split(shapes):
    with pytest.raises(
        DataError, match=r"has no folder train\n  got: folders circle, square, triangle\n.*\n  fix: .*val=0\.2"
    ):
        from_folder(shapes, size=16, batch_size=4)


@pytest.mark.parametrize(
    ("size", "preset", "name"), [(64, "auto", "small_image_train"), (65, "auto", "classification_train")]
)
def test_from_folder_chooses_the_preset_by_size(shapes, size, preset, name):
    data = from_folder(shapes, size=size, batch_size=4, val=0.25, preset=preset)
    assert data.train.transform.to_config()["name"] == name


@pytest.mark.parametrize(
    ("there", "said"), [(["runs", "test", "Valid"], "val='Valid'"), (["runs"], "fix: split a part")]
)
def test_from_folder_without_the_validation_folder_says_what_to_pass(tmp_path, there, said):
    for name in ["train", *there]:
        write_shapes(tmp_path / name, per_class=2, size=16)
    with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))} has no folder val") as caught:
        from_folder(tmp_path, size=16, batch_size=4)
    assert said in str(caught.value)
    assert "val=0.2" in str(caught.value)


def test_from_folder_one_folder_too_high_says_which_to_pass(tmp_path):
    write_shapes(tmp_path / "photos" / "train", per_class=2, size=16)
    with pytest.raises(DataError, match="pass the folder that holds train") as caught:
        from_folder(tmp_path, size=16, batch_size=4)
    assert f"from_folder({str(tmp_path / 'photos')!r}, …)" in str(caught.value)


@pytest.mark.parametrize("size", [(32, 32), "32", 32.0])
def test_from_folder_refuses_a_size_that_is_no_number_of_pixels(shapes, size):
    with pytest.raises(ArgumentError, match="size cannot be used"):
        from_folder(shapes, size=size, batch_size=4, val=0.25)


def test_from_folder_refuses_an_unknown_preset_and_share(shapes):
    with pytest.raises(UnknownNameError, match="unknown preset 'photos'"):
        from_folder(shapes, size=16, batch_size=4, preset="photos")
    with pytest.raises(ArgumentError, match="val cannot be used"):
        from_folder(shapes, size=16, batch_size=4, val=1.5)


# what lies in the folders


def test_classes_are_in_the_order_of_their_sorted_names(tmp_path):
    for name in ("b", "B", "a", "10", "9", "ä", "with space"):
        write_shapes(tmp_path / "new", 1, 8, classes=("circle",))
        (tmp_path / "new" / "circle").rename(tmp_path / "new" / name)
    with pytest.warns(CvkitWarning, match="has classes whose names are nearly the same: 'B' and 'b'\\."):
        data = FolderDataset(tmp_path / "new")
    assert data.classes == sorted(("b", "B", "a", "10", "9", "ä", "with space"))
    assert data.targets == list(range(7))


def test_files_beside_the_class_folders_do_not_count(shapes):
    Image.new("RGB", (4, 4)).save(shapes / "stray.png")
    (shapes / ".DS_Store").write_bytes(b"")
    assert len(FolderDataset(shapes)) == 12


def test_a_folder_named_like_an_image_is_a_folder(shapes):
    (shapes / "circle" / "album.png").mkdir()
    Image.new("RGB", (4, 4)).save(shapes / "circle" / "album.png" / "x.png")
    assert "circle/album.png/x.png" in FolderDataset(shapes).paths


def test_a_class_of_hidden_files_only_is_empty(shapes):
    (shapes / "oval").mkdir()
    (shapes / "oval" / ".DS_Store").write_bytes(b"")
    with pytest.raises(DataError, match=r"oval holds no image\n  got: 1 entries, e\.g\. \.DS_Store\n"):
        FolderDataset(shapes)


def test_a_root_without_any_image_of_the_training_classes_is_refused(shapes, tmp_path):
    (tmp_path / "val" / "circle").mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        FolderDataset(tmp_path / "val", classes=FolderDataset(shapes).classes)
    assert str(caught.value) == (
        f"no image of any class in {tmp_path}/val\n  got: 1 entries, e.g. circle\n"
        "  expected: files ending in .bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp\n"
        "  fix: add images, or name other endings: extensions=(…)"
    )


def test_each_refusal_of_a_root_in_its_words(shapes):
    file = shapes / "circle" / "0000.png"
    with pytest.raises(DataError) as caught:
        FolderDataset(file)
    assert str(caught.value) == (
        f"there is no directory {file}\n  got: a file\n  expected: a directory with one folder a class\n"
        f"  fix: check the path; relative paths start at {Path.cwd()}"
    )
    with pytest.raises(DataError) as caught:
        FolderDataset(shapes / "no" / "where")
    assert f"\n  got: {shapes / 'no'} is not there either\n" in str(caught.value)
    with pytest.raises(DataError) as caught:
        FolderDataset(shapes / "circle")
    assert str(caught.value) == (
        f"{shapes}/circle holds no class folder\n"
        "  got: 4 entries, e.g. 0000.png, 0001.png, 0002.png, 0003.png\n"
        f"  expected: {shapes}/circle/<class>/<image>\n"
        "  fix: put the images of each class into a folder of its name"
    )
    with pytest.raises(DataError) as caught:
        FolderDataset(shapes, classes=["circle", "square"])
    assert str(caught.value) == (
        f"{shapes} holds folders that are no known class: triangle\n  got: folders circle, square, triangle\n"
        "  expected: only circle, square\n"
        "  fix: rename or remove the folder, or add its images to the training set as well"
    )


def test_a_missing_directory_among_many_names_a_few(tmp_path):
    for index in range(30):
        (tmp_path / f"{index:02d}").mkdir()
    with pytest.raises(DataError) as caught:
        FolderDataset(tmp_path / "data")
    names = ", ".join(f"'{index:02d}'" for index in range(10))
    assert str(caught.value).splitlines()[1] == f"  got: {tmp_path} holds [{names}] and 20 more"


@pytest.mark.parametrize("root", [str, Path])
def test_a_relative_root_will_do(shapes, monkeypatch, root):
    monkeypatch.chdir(shapes)
    for where in (".", "", "../shapes", "circle/.."):
        data = FolderDataset(root(where))
        assert (data.paths[0], data[0][0].size) == ("circle/0000.png", (16, 16))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_an_error(shapes):
    (shapes / "circle").chmod(0)
    try:
        with pytest.raises(DataError, match=r"the folder .*circle cannot be read\n  got: PermissionError: "):
            FolderDataset(shapes)
    finally:
        (shapes / "circle").chmod(0o755)


# links


def test_links_are_followed_when_asked_for(shapes, tmp_path):
    outside = write_shapes(tmp_path / "outside", 3, 16, classes=("star",))
    os.symlink(outside / "star", shapes / "star")
    more = write_shapes(tmp_path / "more", 3, 16, classes=("circle",), seed=1)
    os.symlink(more / "circle", shapes / "circle" / "linked")
    os.symlink(write_shapes(tmp_path / "one", 1, 16) / "circle" / "0000.png", shapes / "circle" / "star.png")
    data = FolderDataset(shapes, follow_links=True)
    assert data.classes == ["circle", "square", "star", "triangle"]
    assert [data.targets.count(target) for target in range(4)] == [8, 4, 3, 4]
    assert data.verify()


def test_the_warning_of_links_in_its_words_points_to_the_script(shapes, tmp_path):
    os.symlink(write_shapes(tmp_path / "out", 1, 16), shapes / "circle" / "more")
    with pytest.warns(CvkitWarning) as caught:
        FolderDataset(shapes)
    assert [str(one.message) for one in caught] == [
        f"1 links in {shapes} are left out, e.g. {shapes}/circle/more: links to folders, and to files outside the directory, "
        "are not followed; pass follow_links=True if they are meant"
    ]
    assert caught[0].filename == __file__


def test_a_root_of_links_alone_says_that_they_are_not_followed(shapes, tmp_path):
    (tmp_path / "links").mkdir()
    os.symlink(shapes / "circle", tmp_path / "links" / "circle")
    with pytest.raises(
        DataError,
        match=r"\n  got: 1 entries, e\.g\. circle; 1 links, which are not followed without follow_links=True\n",
    ):
        FolderDataset(tmp_path / "links")
    assert FolderDataset(tmp_path / "links", follow_links=True).classes == ["circle"]


def test_a_class_of_links_alone_says_that_they_are_not_followed(shapes, tmp_path):
    outside = write_shapes(tmp_path / "outside", 2, 16, classes=("star",))
    (shapes / "star").mkdir()
    for index in range(2):
        os.symlink(outside / "star" / f"000{index}.png", shapes / "star" / f"{index}.png")
    with pytest.raises(DataError) as caught:
        FolderDataset(shapes)
    assert str(caught.value).splitlines()[:2] == [
        f"the class folder {shapes}/star holds no image",
        "  got: 2 entries, e.g. 0.png, 1.png; 2 links, which are not followed without follow_links=True",
    ]


def test_a_root_that_is_a_link_itself_is_the_users_choice(shapes, tmp_path):
    os.symlink(shapes, tmp_path / "here")
    os.symlink(shapes / "circle" / "0000.png", shapes / "circle" / "again.png")
    with pytest.warns(
        CvkitWarning, match="here lists 1 images more than once, e.g. circle/0000.png and circle/again.png"
    ):
        assert len(FolderDataset(tmp_path / "here")) == 13


@pytest.mark.parametrize("target", ["..", ".", "../.."])
def test_links_in_circles_are_an_error_where_they_are_followed(shapes, target):
    os.symlink(target, shapes / "circle" / "loop")
    with pytest.warns(CvkitWarning, match="1 links"):
        assert len(FolderDataset(shapes)) == 12
    with pytest.raises(DataError) as caught:
        FolderDataset(shapes, follow_links=True)
    first, _, *rest = str(caught.value).splitlines()
    assert first.startswith(f"the link {shapes}/circle/loop")
    assert first.endswith("leads back to a folder that it lies in")
    assert rest == [
        "  expected: links that do not go in circles",
        "  fix: remove the link, or leave follow_links out",
    ]


@pytest.mark.parametrize("place", ["circle/loop.png", "loop"])
@pytest.mark.parametrize("follow_links", [False, True])
def test_a_link_to_itself_is_an_error_by_name(shapes, place, follow_links):
    os.symlink(Path(place).name, shapes / place)
    with pytest.raises(DataError) as caught:
        FolderDataset(shapes, follow_links=follow_links)
    assert str(caught.value) == (
        f"the link {shapes}/{place} leads nowhere\n  got: OSError: Too many levels of symbolic links\n"
        "  expected: a link to a file or a folder\n  fix: remove the link"
    )


def test_a_link_to_nothing_is_named_when_it_is_read(shapes):
    os.symlink("gone.png", shapes / "circle" / "9.png")
    data = FolderDataset(shapes)
    assert list(data.verify().bad) == ["circle/9.png"]
    with pytest.raises(ImageError, match=r"^sample 4: cannot read the image .*circle/9\.png\n  got: FileNotFoundError"):
        data[4]


def test_from_folder_makes_grey_images_where_it_is_asked_for_one_channel(shapes):
    for options in ({}, {"preset": "classification"}, {"preset": "digits"}):
        data = from_folder(shapes, size=16, batch_size=4, val=0.25, channels=1, **options)
        assert [next(iter(one))[0].shape[1] for one in (data.train, data.val)] == [1, 1]
    grey = small_image_train(16, channels=1)
    data = from_folder(shapes, size=16, batch_size=4, val=0.25, channels=1, transform=grey)
    assert data.val.transform.channels == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"channels": 3, "preset": "digits"},
            'channels cannot be used\n  got: 3 with preset="digits"\n  expected: 1: digits are grey\n'
            '  fix: pass preset="small_image", or transform=cvkit.transforms.digits_train(…) with three means and stds',
        ),
        (
            {"channels": 1, "transform": small_image_train(16)},
            f"channels is not what the transform gives\n  got: channels=1, {small_image_train(16)!r}\n"
            "  expected: a transform of 1 channels\n  fix: give the transform channels=1, or leave channels out here",
        ),
    ],
)
def test_from_folder_refuses_channels_that_its_preset_does_not_give(shapes, options, message):
    with pytest.raises(ArgumentError) as caught:
        from_folder(shapes, size=16, batch_size=4, val=0.25, **options)
    assert str(caught.value) == message
