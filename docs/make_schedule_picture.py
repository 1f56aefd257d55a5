"""Draws the learning-rate schedules of howto/schedules.rst anew: ``python docs/make_schedule_picture.py``."""

from pathlib import Path

from matplotlib.figure import Figure

from cvkit.training.schedules import factor, shapes

IMAGE = Path(__file__).parent / "_static" / "howto" / "schedules.png"
TOTAL, WARMUP = 1000, 100


def main():
    names = shapes.names()
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(3, 3, place + 1)
        steps = range(TOTAL)
        axes.plot(steps, [factor(name, step, TOTAL) for step in steps], label="as it is")
        axes.plot(steps, [factor(name, step, TOTAL, WARMUP) for step in steps], "--", label="warmup=0.1")
        axes.set_title(f'"{name}"', fontsize=9, family="monospace")
        axes.set_ylim(-0.05, 1.1)
        axes.tick_params(labelsize=7)
    figure.axes[0].legend(fontsize=7, loc="lower right")
    figure.supxlabel("share of the run, in thousandths", fontsize=8)
    figure.supylabel("factor on lr", fontsize=8)
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGE, dpi=80, metadata={"Software": None})
    print(f"{IMAGE.name}: {IMAGE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
