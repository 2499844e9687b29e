"""Write dataset.json for a folder of class folders: classes are sorted by name and counted from 0.

python apps/dataset_labels.py --source=~/data/afhq/train --out=~/data/afhq/train/dataset.json
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dnnlib.errors import DataError
from dnnlib.files import whole_file
from dnnlib.options import Options, at_least, run


def read_options():
    parser = Options(description=__doc__)
    add = parser.add_argument
    add("--source", required=True, metavar="DIR", help="holds one folder of images per class")
    add("--out", required=True, metavar="FILE", help="the dataset.json to write")
    add("--min-size", type=at_least(1), default=1, metavar="N", help="leave out images with a side of fewer pixels")
    return parser.parse_args()


def main():
    args = read_options()
    from training.data.classes import class_labels

    names, labels = class_labels(args.source, args.min_size)
    with whole_file(Path(args.out).expanduser(), DataError) as draft:
        draft.write_text(json.dumps({"labels": labels}), encoding="utf-8")
    print(f"{len(labels)} images of {len(names)} classes ({', '.join(names)}) are listed in {args.out}")


if __name__ == "__main__":
    run(main)
