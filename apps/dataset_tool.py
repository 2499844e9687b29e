"""Make a zip or folder of equal, square images for training. python apps/dataset_tool.py --help"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dnnlib.errors import ConfigError
from dnnlib.options import Options, at_least, run, size
from dnnlib.progress import progress

EXAMPLES = """examples:
  python apps/dataset_tool.py --source=~/data/afhq/train --dest=~/datasets/afhq.zip --width=256 --height=256
  python apps/dataset_tool.py --source=photos --dest=photos.zip --transform=center-crop --resolution=512x512
  python apps/dataset_tool.py --source=cifar-10-python.tar.gz --dest=cifar10.zip
Labels and cameras in the source's dataset.json go along; apps/dataset_labels.py makes one from folder names."""


def read_options():
    parser = Options(description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--source", required=True, metavar="PATH", help="folder, .zip, *_lmdb, cifar-10-python.tar.gz or "
        "train-images-idx3-ubyte.gz (with its labels file beside it)")  # fmt: skip
    add("--dest", required=True, metavar="ZIP|DIR", help="what to write")
    add("--max-images", type=at_least(1), metavar="N", help="read at most N images")
    add("--transform", choices=["center-crop", "center-crop-wide"], help="crop before resizing [only resize]")
    add("--resolution", type=size, metavar="WxH", help="size to make, such as 512x512 [as it is]")
    add("--width", type=at_least(1), metavar="W", help="the same in two options")
    add("--height", type=at_least(1), metavar="H", help="the same in two options")
    add("--resize-filter", choices=["box", "lanczos"], default="lanczos", help="[lanczos]")
    return parser.parse_args()


def main():
    args = read_options()
    if args.resolution and (args.width or args.height):
        raise ConfigError("--resolution and --width/--height say the same: give one of them")
    width, height = args.resolution or (args.width, args.height)
    from training.data.packing import pack, transform
    from training.data.sources import open_source

    change = transform(args.transform, width, height, args.resize_filter)
    count = pack(open_source(args.source), args.dest, change, args.max_images, progress)
    print(f"{count} images are in {args.dest}")


if __name__ == "__main__":
    run(main)
