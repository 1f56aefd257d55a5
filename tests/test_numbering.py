"""Whether the parts of torch's ConcatDataset mean the same class by the same number."""

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset, random_split

from cvkit.errors import DataError
from cvkit.numbering import check_numbering, known_classes


class Named(Dataset):
    """Samples of named classes, whose target is the place of the name."""

    def __init__(self, *classes, target_transform=None):
        self.classes = list(classes)
        self.target_transform = target_transform

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.zeros(2), index % len(self.classes)


class Relabelled(Subset):
    """A subset with targets of its own."""

    def __getitem__(self, index):
        return super().__getitem__(index)[0], 0

    def __getitems__(self, indices):
        return [self[index] for index in indices]


ANTS, BEES = Named("ants"), Named("bees")

DIFFERENT = {
    "two parts": lambda: ConcatDataset([ANTS, BEES]),
    "in a subset": lambda: Subset(ConcatDataset([ANTS, BEES]), [0, 5]),
    "in a random split": lambda: random_split(ConcatDataset([ANTS, BEES]), [6, 2])[0],
    "of subsets": lambda: ConcatDataset([Subset(ANTS, [0]), random_split(BEES, [2, 2])[1]]),
    "nested": lambda: ConcatDataset([ANTS, ConcatDataset([ANTS, BEES])]),
    "across nesting": lambda: ConcatDataset([ConcatDataset([ANTS, ANTS]), Subset(ConcatDataset([BEES]), [1])]),
    "another order": lambda: ConcatDataset([Named("a", "b"), Named("b", "a")]),
    "torch's plus": lambda: ANTS + BEES,
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_parts_that_number_their_classes_differently_are_refused(case):
    with pytest.raises(DataError, match="the parts of this ConcatDataset number their classes differently"):
        check_numbering(DIFFERENT[case]())


def test_the_message_holds_the_line_to_write():
    with pytest.raises(DataError) as caught:
        check_numbering(ConcatDataset([ANTS, ANTS, Subset(BEES, [0])]))
    assert str(caught.value) == (
        "the parts of this ConcatDataset number their classes differently\n"
        "  got: part 0 (Named): ants; part 2 (Named): bees\n"
        "  expected: the same classes in the same order, so that a target means the same class in each part\n"
        "  fix: join them with cvkit.data.concat(first, second, …), which numbers the classes anew, or build each part with "
        "classes=['ants', 'bees']"
    )


ALIKE = {
    "the same classes": lambda: ConcatDataset([ANTS, Named("ants")]),
    "classes that go on": lambda: ConcatDataset([ANTS, Named("ants", "bees")]),
    "no names": lambda: ConcatDataset([TensorDataset(torch.zeros(2)), ANTS]),
    "targets made anew": lambda: ConcatDataset([ANTS, Named("bees", target_transform=lambda target: 1)]),
    "a part with targets of its own": lambda: ConcatDataset([ANTS, Relabelled(BEES, [0])]),
    "a whole with targets of its own": lambda: Relabelled(ConcatDataset([ANTS, BEES]), [0]),
    "no ConcatDataset": lambda: ANTS,
}


@pytest.mark.parametrize("case", ALIKE)
def test_parts_that_number_alike_or_say_nothing_pass(case):
    check_numbering(ALIKE[case]())


def test_names_are_those_of_the_whole_and_only_lists_of_strings():
    assert known_classes(Subset(Subset(ANTS, [0, 1]), [0])) == ["ants"]
    numbers = Named("ants")
    numbers.classes = torch.arange(3)
    assert known_classes(numbers) is None
