"""Which composites there are, and what must become of each: the failure cases of single-character footage, as data.

A label says what the filters must do, from how the composite was made and not from what they measure. Sizes of a second face
are judged by the limits of ``CharacterConfig``, with a tenth to either side where nothing is asked for.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench import composites as make
from bench.composites import Cutout, Person
from bench.filter_labels import Expected, Label, Mark
from curation.character import CharacterConfig

FPS = 12
LENGTH = 60
LONG = 144
LEAST = 33
"""Frames of the shortest sample; for one to be asked for, more must be left beside a fault, as the census looks seldom."""
LOOK = 6
"""Frames between two looks of the census."""
PICKS = 3
"""Composites of a kind, each of another person."""


@dataclass(frozen=True)
class Composite:
    """``build()`` makes the frames ``[T, H, W, 3]``, at 12 fps; ``main`` names the person it is about."""

    name: str
    case: str
    main: str
    label: Label
    build: Callable[[], np.ndarray]


# Rules that may also speak where a face cannot be seen, or a stretch is too short.
_UNSEEN = ("no_face", "face_lost", "no_window")
_CROWD = ("second_face", "second_face_in_shot")
_BROKEN = ("shot_too_short", "no_window")


def composites(people: Sequence[Person], characters: CharacterConfig) -> list[Composite]:
    """Every composite that ``people`` give, all of them in wide frames; names are unique and the same on every machine."""
    cast = _Cast(people)
    return [
        *_clean(people),
        *_second_faces(cast, characters),
        *_passers_by(cast),
        *_crowds(cast),
        *_mirrors(cast),
        *_posters(cast),
        *_cuts(cast),
        *_dissolves(cast),
        *_freezes(cast),
        *_blurs(cast),
        *_bars(cast),
        *_absences(cast),
        *_hands(cast),
        *_screens(cast),
    ]


class _Cast:
    """Deals people out in turn, so that every kind of composite has others and everyone has a part."""

    def __init__(self, people: Sequence[Person]) -> None:
        self._people = people
        self._turn = itertools.count()

    def pairs(self, count: int = PICKS, *, again: bool = False) -> Iterator[tuple[int, Person, Person]]:
        """``count`` times: its number, the main character, and someone else (or, alone, oneself at another time).

        Nobody is the main character twice, except ``again`` where there are fewer people than that.
        """
        everyone = self._people
        for i in range(count if again else min(count, len(everyone))):
            at = next(self._turn)
            main = everyone[at % len(everyone)]
            others = [person for person in everyone if person is not main]
            # Every second round begins elsewhere, or the same two would meet again and again.
            guest = others[(at + at // len(everyone)) % len(others)] if others else main.backwards()
            yield i, main, guest


def _during(start: int, stop: int, length: int = LENGTH) -> np.ndarray:
    shown = np.zeros(length, bool)
    shown[start:stop] = True
    return shown


def _always(length: int = LENGTH) -> np.ndarray:
    return np.ones(length, bool)


def _clean(people: Sequence[Person]) -> Iterator[Composite]:
    for person in people:
        yield Composite(
            f"clean/{person.name}", "clean", person.name, Label("kept"), lambda p=person: p.lasting(LENGTH).frames
        )


# --- other people ----------------------------------------------------------------------------------------------------


def _second_faces(cast: _Cast, characters: CharacterConfig) -> Iterator[Composite]:
    for height, count in itertools.product((0.04, 0.10, 0.14, 0.20, 0.40), (1, 3, 6, 12, 24, 48)):
        for i, main, guest in cast.pairs(again=True):
            start = (0, LENGTH - count, (LENGTH - count) // 2)[i % 3]
            shown = _during(start, start + count)
            cutout = make.cut_out(guest, height * main.height)
            # Where there is too little room on both sides, there may be enough on one.
            tries = [(dx, make.free_place(main, cutout, dx)) for dx in (0, -max(0, int(main.head[0])))]
            dx, place = next(((dx, place) for dx, place in tries if place is not None), (0, None))
            if place is None:
                continue
            yield Composite(
                f"second_face/h{height:.2f}_{count}_frames_from_{start}_{main.name}_{guest.name}",
                f"second face {height:.2f} H",
                main.name,
                _second_face_label(shown, _weight(main, cutout, characters)),
                lambda m=main, d=dx, c=cutout, p=place, s=shown: make.pasted(
                    make.shifted(m, d).lasting(LENGTH).frames, c, [p] * LENGTH, s
                ),
            )


def _weight(main: Person, cutout: Cutout, characters: CharacterConfig) -> float:
    """The second face's area over the least that makes it a second character."""
    least = min(
        characters.second_face_frame_share * main.width * main.height,
        characters.second_face_area * float(np.prod(main.face_wh)),
    )
    return float(np.prod(cutout.face_wh)) / least


def _second_face_label(shown: np.ndarray, weight: float) -> Label:
    if weight < 0.9:
        return Label("kept")
    if weight < 1.1:
        return Label("either", _CROWD)
    count = int(shown.sum())
    if count <= 0.05 * len(shown):  # as few as are tolerated; the census may see them, or look between them
        return Label("either", _CROWD, second=True)
    at = np.flatnonzero(shown)
    left = max(int(at[0]), len(shown) - 1 - int(at[-1]))
    expected: Expected = "split" if left >= LEAST + LOOK else "either" if left >= LEAST else "rejected"
    return Label(expected, _CROWD, (Mark("second face", shown),), second=True)


def _passers_by(cast: _Cast) -> Iterator[Composite]:
    for count, expected in ((2, "kept"), (6, "kept"), (24, "split")):
        for i, main, guest in cast.pairs(2):
            start = (30, 84)[i % 2]
            shown = _during(start, start + count, LONG)
            cutout = make.cut_out(guest, 0.2 * main.height)
            places = make.crossing(main.width, cutout, main.height - cutout.alpha.shape[0], shown)
            marks = (Mark("passer-by", shown),) if expected == "split" else ()
            yield Composite(
                f"passer_by/{count}_frames_{main.name}_{guest.name}",
                "passer-by",
                main.name,
                Label("split" if marks else "kept", _CROWD, marks, second=True),
                lambda m=main, c=cutout, p=places, s=shown: make.pasted(m.lasting(LONG).frames, c, p, s),
            )


def _crowds(cast: _Cast) -> Iterator[Composite]:
    everyone = Label("rejected", _CROWD, second=True)
    for _, main, guest in cast.pairs():
        yield Composite(
            f"two_shot/{main.name}_{guest.name}",
            "two-shot",
            main.name,
            everyone,
            lambda m=main, g=guest: make.side_by_side(m.lasting(LENGTH), g.lasting(LENGTH)),
        )
    for _, main, guest in cast.pairs():
        cutouts = [make.cut_out(person, 0.2 * main.height) for person in (guest, guest.flipped(), main)]

        def group(m: Person = main, crowd: Sequence[Cutout] = cutouts) -> np.ndarray:
            frames = m.lasting(LENGTH).frames
            for i, cutout in enumerate(crowd):
                place = (round((0.03, 0.75, 0.4)[i] * m.width), round((0.1, 0.55, 0.65)[i] * m.height))
                frames = make.pasted(frames, cutout, [place] * LENGTH, _always())
            return frames

        yield Composite(f"group/{main.name}_{guest.name}", "group", main.name, everyone, group)


def _mirrors(cast: _Cast) -> Iterator[Composite]:
    rules = ("mirror", *_CROWD, "inset")
    for _, main, _ in cast.pairs():
        yield Composite(
            f"mirror/beside_{main.name}",
            "mirror",
            main.name,
            # Which of the two is the image, nobody can tell.
            Label("either", rules, apart=_faces_beside(main), second=True),
            lambda m=main: make.side_by_side(m.lasting(LENGTH), m.flipped().lasting(LENGTH)),
        )
    for size, far in ((0.2, False), (0.3, False), (0.2, True)):
        for _, main, _ in cast.pairs():
            image = make.cut_out(main.flipped(), size * main.height, framed=True)
            yield from _picture("mirror", f"{size:.2f}", main, image, far, rules, still=False)


def _faces_beside(main: Person) -> tuple[tuple[float, float, float, float], ...]:
    """Where the faces are when ``main`` stands beside the mirror image."""
    half, (w, _) = main.width // 4 * 2, main.face_wh
    y0, y1 = (float(np.median(main.boxes[:, side])) for side in (1, 3))
    centres = (half / 2, half * 3 / 2)
    return tuple((x - float(w) / 2, y0, x + float(w) / 2, y1) for x in centres)


def _posters(cast: _Cast) -> Iterator[Composite]:
    rules = ("poster", *_CROWD, "inset")
    for size, far in ((0.2, False), (0.3, False), (0.2, True)):
        for _, main, guest in cast.pairs():
            image = make.cut_out(guest, size * main.height, framed=True)
            yield from _picture("poster", f"{size:.2f}_{guest.name}", main, image, far, rules, still=True)


def _picture(
    case: str, what: str, main: Person, image: Cutout, far: bool, rules: tuple[str, ...], still: bool
) -> Iterator[Composite]:
    """A face in a frame on the wall: beside the head, where the crop may show it, or so far off that no crop has to."""
    if still:
        image = Cutout(image.frames[:1], image.alpha, image.face_wh, image.faces[:1])
    w = image.alpha.shape[1]
    width = main.width + (round(main.height * 1.4 / 4) * 4 if far else 0)
    place: tuple[int, int] | None = make.free_place(main, image)
    if far:
        place = (width - w - round(0.05 * main.height), round(0.2 * main.height))
    if place is None:
        return
    # The face in it: a crop may show the frame's edge.
    x0, y0, x1, y1 = (float(side) for side in np.median(image.faces, axis=0) + np.tile(place, 2))
    yield Composite(
        f"{case}/{'far' if far else 'near'}_{what}_{main.name}",
        f"{case}, {'far' if far else 'near'}",
        main.name,
        Label("split" if far else "either", rules, (Mark(case, _always(), (x0, y0, x1, y1)),), second=True),
        lambda: make.pasted(make.widened(main, width, at=0).lasting(LENGTH).frames, image, [place] * LENGTH, _always()),
    )


# --- several shots ---------------------------------------------------------------------------------------------------


def _cuts(cast: _Cast) -> Iterator[Composite]:
    for first, second in ((54, 54), (26, 26)):
        long_enough = first >= LEAST
        for _, main, guest in cast.pairs():
            yield Composite(
                f"cut/{first}_{main.name}_{guest.name}",
                "cut" if long_enough else "cut, short shots",
                main.name,
                Label("split" if long_enough else "rejected", _BROKEN, seams=(first,)),
                lambda m=main, g=guest, a=first, b=second: np.concatenate(
                    [m.lasting(a).frames, _like(g, m).lasting(b).frames]
                ),
            )
    for _, main, _ in cast.pairs():

        def zoom(m: Person = main) -> np.ndarray:
            near = m.sized(round(m.height * 1.25 / 2) * 2)
            x = int(np.clip(np.median(near.boxes[:, ::2]) - m.width / 2, 0, near.width - m.width))
            after = near.lasting(54).frames[:, : m.height, x : x + m.width]
            return np.concatenate([m.lasting(54).frames, after])

        yield Composite(f"cut/zoom_{main.name}", "cut, same person", main.name, Label("split", seams=(54,)), zoom)


def _dissolves(cast: _Cast) -> Iterator[Composite]:
    for length in (6, 12, 24):
        for _, main, guest in cast.pairs():
            first, second = 54 + length, 54 + length
            ramp = (np.arange(length) + 1) / (length + 1)
            seen = np.concatenate([np.zeros(54, bool), (ramp > 0.2) & (ramp < 0.8), np.zeros(54, bool)])
            yield Composite(
                f"dissolve/{length}_frames_{main.name}_{guest.name}",
                f"dissolve, {length} frames",
                main.name,
                Label("split", _BROKEN, (Mark("dissolve", seen),), (54 + length // 2,)),
                lambda m=main, g=guest, a=first, b=second, n=length: make.dissolved(
                    m.lasting(a).frames, _like(g, m).lasting(b).frames, n
                )[0],
            )


def _like(guest: Person, main: Person) -> Person:
    """In a frame of ``main``'s size; where both are one person, mirrored, or there might be no cut to see."""
    if guest.name == main.name:
        guest = guest.flipped()
    fitted = make.widened(guest.sized(main.height), main.width)
    left = (fitted.width - main.width) // 2
    return Person(guest.name, fitted.frames[:, :, left : left + main.width], fitted.boxes - [left, 0, left, 0])


# --- bad pictures ----------------------------------------------------------------------------------------------------


def _freezes(cast: _Cast) -> Iterator[Composite]:
    for share in (0.2, 0.4, 0.6):
        length = round(share * LENGTH)
        start = (LENGTH - length) // 2
        label = Label("kept" if share < 0.3 else "rejected", ("frozen",))
        for _, main, _ in cast.pairs():
            yield Composite(
                f"freeze/{share:.0%}_{main.name}",
                f"freeze, {share:.0%}",
                main.name,
                label,
                lambda m=main, s=start, n=length: make.frozen(m.lasting(LENGTH).frames, s, n),
            )
    for _, main, _ in cast.pairs():
        yield Composite(
            f"freeze/every_second_{main.name}",
            "freeze, half the rate",
            main.name,
            Label("rejected", ("frozen", "too_few_frames")),
            lambda m=main: make.stuttering(m.lasting(LENGTH).frames),
        )


def _blurs(cast: _Cast) -> Iterator[Composite]:
    rules = ("blurred", *_UNSEEN)
    degrees: tuple[tuple[str, float, float, Expected], ...] = (
        ("slight", 0.01, 0.03, "kept"),
        ("strong", 0.06, 0.3, "rejected"),
    )
    for word, share, _, expected in degrees:
        for _, main, _ in cast.pairs():
            sigma = share * float(main.face_wh[1])
            yield Composite(
                f"blur/{word}_{main.name}",
                f"blur, {word}",
                main.name,
                Label(expected, rules),
                lambda m=main, s=sigma: make.blurred(m.lasting(LENGTH).frames, s),
            )
    for word, _, share, expected in degrees:
        for _, main, _ in cast.pairs():
            length = round(share * float(main.face_wh[1]))
            yield Composite(
                f"motion_blur/{word}_{main.name}",
                f"motion blur, {word}",
                main.name,
                Label(expected, rules),
                lambda m=main, n=length: make.smeared(m.lasting(LENGTH).frames, n),
            )


def _bars(cast: _Cast) -> Iterator[Composite]:
    kinds: tuple[tuple[str, float, float, make.Rgb], ...] = (
        ("black_letterbox", 0.12, 0.0, (0, 0, 0)),
        ("black_pillarbox", 0.0, 0.2, (0, 0, 0)),
        ("coloured_letterbox", 0.12, 0.0, (40, 60, 140)),
        ("white_windowbox", 0.08, 0.12, (245, 245, 245)),
    )
    for kind, above, beside, colour in kinds:
        for _, main, _ in cast.pairs():
            top, side = (round(share * main.height / 2) * 2 for share in (above, beside))
            width, height = main.width + 2 * side, main.height + 2 * top
            edges = {
                "top bar": (0, 0, width, top),
                "bottom bar": (0, height - top, width, height),
                "left bar": (0, 0, side, height),
                "right bar": (width - side, 0, width, height),
            }
            marks = tuple(
                Mark(what, _always(), box) for what, box in edges.items() if box[0] < box[2] and box[1] < box[3]
            )
            yield Composite(
                f"bars/{kind}_{main.name}",
                "bars",
                main.name,
                Label("split", marks=marks),
                lambda m=main, t=top, s=side, c=colour: make.barred(m.lasting(LENGTH).frames, t, s, c),
            )


# --- the face out of sight -------------------------------------------------------------------------------------------


def _absences(cast: _Cast) -> Iterator[Composite]:
    before, slide, away = 54, 4, 12
    for _, main, _ in cast.pairs():
        ramp = np.linspace(0, 1, slide + 2)[1:-1]
        share = np.concatenate([np.zeros(before), ramp, np.ones(away), ramp[::-1], np.zeros(22)])
        dx = np.rint(share * (main.width - max(0.0, float(main.head[0]))))
        yield Composite(
            f"leaving/{main.name}",
            "face leaves and returns",
            main.name,
            Label("split", marks=(Mark("no face", share == 1),)),
            lambda m=main, x=dx: make.moved(m.lasting(len(x)).frames, x),
        )


def _hands(cast: _Cast) -> Iterator[Composite]:
    rules = ("occluded", *_UNSEEN)
    for share, groups in ((0.1, 1), (0.3, 3)):
        shown = np.zeros(LENGTH, bool)
        for k in range(groups):
            at = round((k + 0.5) * LENGTH / groups)
            shown[at - 3 : at + 3] = True
        for _, main, _ in cast.pairs():
            yield Composite(
                f"hand/{share:.0%}_{main.name}",
                f"hand before the mouth, {share:.0%}",
                main.name,
                Label("kept" if share < 0.2 else "rejected", rules),
                lambda m=main, s=shown: make.covered(m.lasting(LENGTH), s),
            )


def _screens(cast: _Cast) -> Iterator[Composite]:
    for moving in (False, True):
        for i, main, _ in cast.pairs():
            height, width = round(main.height * 1.5 / 2) * 2, round(main.width * 1.5 / 2) * 2
            x, y = round(width * 0.1), round(height * 0.2)
            border, colour = max(1, main.height // 120), ((250, 250, 250), (15, 15, 15))[i % 2]

            def screen(
                m: Person = main,
                size: tuple[int, int] = (height, width),
                place: tuple[int, int] = (x, y),
                edge: tuple[int, make.Rgb] = (border, colour),
                drift: bool = moving,
                seed: int = i,
            ) -> np.ndarray:
                behind = make.backdrop(*size, seed=seed)[None]
                if drift:
                    behind = np.stack([np.roll(behind[0], 3 * t, axis=1) for t in range(LENGTH)])
                return make.on_screen(m.lasting(LENGTH).frames, behind, *place, *edge)

            yield Composite(
                f"screen/{'moving' if moving else 'still'}_{main.name}",
                f"screen in screen, {'moving' if moving else 'still'}",
                main.name,
                Label("rejected", ("inset",)),
                screen,
            )
