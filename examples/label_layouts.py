"""The same images labelled in four ways: by folder, by a text file each, by file name, by a CSV table.

``--data DIR`` takes any folder of images with one folder a class; generated shapes by default. They are copied into the
three other layouts; then all four are read, and hold the same samples with the same targets.
"""

import argparse
import csv
import shutil
from pathlib import Path

import cvkit
from cvkit.data import FilenameDataset, FolderDataset, Loader, ParallelDataset, TableDataset


def copy(folder: FolderDataset, out: Path) -> None:
    """Writes the images of a folder once more with a text file each, once more with telling names, and a table."""
    for part in ("images", "labels", "named"):
        (out / part).mkdir(parents=True, exist_ok=True)
    with open(out / "table.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label"])
        for number, (path, target) in enumerate(zip(folder.paths, folder.targets)):
            label, name = folder.classes[target], f"{number:05d}{Path(path).suffix}"
            shutil.copyfile(folder.root / path, out / "images" / name)
            shutil.copyfile(folder.root / path, out / "named" / f"{label}.{name}")
            (out / "labels" / f"{number:05d}.txt").write_text(label, "utf-8")
            table.writerow([f"images/{name}", label])


def main() -> None:
    """Reads four layouts, and shows a batch of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--out", type=Path, default=Path("runs/label_layouts"), help="where the layouts are written")
    options = parser.parse_args()

    out = options.out
    folder = FolderDataset(options.data or cvkit.data.write_shapes(out / "shapes", per_class=20))
    copy(folder, out)
    layouts = {
        "folder": folder,
        "text files": ParallelDataset(out / "images", out / "labels", "text"),
        "file names": FilenameDataset(out / "named", r"^(?P<label>.+)\.\d+\.\w+$"),
        "table": TableDataset(out / "table.csv"),
    }
    for name, dataset in layouts.items():
        same = dataset.classes == folder.classes and list(dataset.targets) == list(folder.targets)
        print(f"{name:10}  {len(dataset)} images, {dataset.classes}, targets as in the folder: {same}")
    try:
        batches = Loader(layouts["table"], 16, transform=cvkit.transforms.small_image_eval(64), shuffle=True)
        cvkit.plots.show_batch(batches, columns=8).savefig(out / "label_layouts.png")
    except cvkit.errors.MissingDependencyError as missing:
        print("no image:", missing)


if __name__ == "__main__":
    main()
