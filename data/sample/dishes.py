"""Eleven dishes, one drawing function a Food-11 class, in the class id order of `data.food11.CLASSES`.

A dish is drawn with a `Pen` in dish units: x to the right, y downwards, the dish about the unit disc. Every
function picks one of a few variants, and all of them share browns, whites and reds, so that form and texture
tell the classes apart where colour does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import ImageDraw

Colour = tuple[int, int, int]
TAU = 2 * np.pi
_LIGHT = np.array([-0.6, -0.8])  # where the light comes from, in the picture: the upper left


@dataclass(frozen=True)
class Pen:
    """Draws points (n, 2) given in dish units; `basis` (2, 2) and `origin` (2,) take them to pixels."""

    draw: ImageDraw.ImageDraw
    rng: np.random.Generator
    basis: np.ndarray
    origin: np.ndarray
    tint: tuple[float, float, float]  # gains that this dish's colours share

    @property
    def unit_px(self) -> float:
        return float(np.sqrt(abs(np.linalg.det(self.basis))))

    def at(self, x: float, y: float, scale: float = 1.0, angle: float = 0.0) -> Pen:
        """A pen for a part of the dish: moved, scaled and turned (radians)."""
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return replace(self, basis=self.basis @ turn, origin=self.origin + self.basis @ [x, y])

    def paint(self, colour: Colour, gain: float = 1.0, alpha: int = 255) -> tuple[int, ...]:
        return (*(min(255, int(value * tint * gain)) for value, tint in zip(colour, self.tint)), alpha)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(points, dtype=float) @ self.basis.T + self.origin

    def shape(self, points: np.ndarray, colour: Colour, gain: float = 1.0, alpha: int = 255) -> None:
        """A flat polygon."""
        self.draw.polygon(self.pixels(points).ravel().tolist(), fill=self.paint(colour, gain, alpha))

    def line(self, points: np.ndarray, colour: Colour, width: float, gain: float = 1.0) -> None:
        """A stroke, `width` in dish units."""
        width_px = max(1, round(width * self.unit_px))
        self.draw.line(self.pixels(points).ravel().tolist(), self.paint(colour, gain), width_px, joint="curve")

    def piece(self, points: np.ndarray, colour: Colour, height: float = 0.08) -> None:
        """A solid thing: a shadow, a dark rim, and a body that lightens towards the light."""
        outline = self.pixels(points)
        step = _LIGHT * height * self.unit_px
        for reach in (1.4, 0.9, 0.5):
            self.draw.polygon((outline - reach * step).ravel().tolist(), fill=(20, 12, 8, 46))
        middle, gain = outline.mean(axis=0), 0.9 + 0.2 * self.rng.random()
        for size, lift, light in ((1.0, 0.0, 0.74), (0.95, 0.15, 0.93), (0.78, 0.35, 1.02), (0.5, 0.8, 1.1)):
            layer = middle + size * (outline - middle) + lift * step
            self.draw.polygon(layer.ravel().tolist(), fill=self.paint(colour, gain * light))


@lru_cache
def _circle(points: int) -> np.ndarray:
    angle = np.linspace(0, TAU, points, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def oval(rx: float, ry: float | None = None, points: int = 28) -> np.ndarray:
    return _circle(points) * (rx, rx if ry is None else ry)


def blob(rng: np.random.Generator, rx: float, ry: float, wobble: float) -> np.ndarray:
    """An oval whose radius wavers by about the fraction `wobble`."""
    angle = np.linspace(0, TAU, 44, endpoint=False)
    waves = sum(rng.normal() / k * np.cos(k * angle + TAU * rng.random()) for k in (2, 3, 4, 5, 6))
    return oval(rx, ry, 44) * (1 + wobble * waves)[:, None]


def _arc(radius: float, start: float, stop: float, points: int = 14) -> np.ndarray:
    angle = np.linspace(start, stop, points)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def scatter(rng: np.random.Generator, count: int, rx: float, ry: float) -> np.ndarray:
    """(count, 2) points, uniform in an oval."""
    angle, radius = TAU * rng.random(count), np.sqrt(rng.random(count))
    return np.stack([rx * radius * np.cos(angle), ry * radius * np.sin(angle)], axis=1)


def _draw_bread(pen: Pen) -> None:
    """A scored loaf, slices with holes in the crumb, or seeded rolls."""
    rng, crust, crumb = pen.rng, (178, 112, 54), (240, 214, 164)
    variant = rng.integers(3)
    if variant == 0:
        pen.piece(blob(rng, 0.98, 0.5, 0.03), crust, 0.1)
        for x in np.linspace(-0.55, 0.55, rng.integers(3, 6)):
            cut = np.array([[x - 0.14, 0.3], [x - 0.03, 0.02], [x + 0.16, -0.28]])
            pen.line(cut + [0.03, 0.03], (110, 62, 28), 0.17)
            pen.line(cut, crumb, 0.11)
    elif variant == 1:
        lobes = [_arc(0.4, 2.4, 4.5) + [-0.3, -0.35], _arc(0.4, -1.4, 0.7) + [0.3, -0.35]]
        slice_ = np.concatenate([*lobes, [[0.56, 0.1], [0.55, 0.72], [-0.55, 0.72], [-0.56, 0.1]]])
        for x in np.linspace(-0.34, 0.34, rng.integers(2, 4)):
            part = pen.at(x, 0.5 * x * rng.random(), 0.92, rng.normal(0, 0.15))
            part.piece(slice_, crust, 0.06)
            part.shape(slice_ * 0.86, crumb)
            for spot in scatter(rng, 14, 0.38, 0.5):
                part.shape(oval(*rng.uniform(0.02, 0.06, 2), 9) + spot, crumb, 0.8)
    else:
        for x, y in ((-0.45, 0.25), (0.45, 0.3), (0.0, -0.4))[: rng.integers(2, 4)]:
            part = pen.at(x, y, 0.52)
            part.piece(blob(rng, 1, 0.95, 0.03), crust, 0.16)
            for turn in (0.7, 2.3):
                part.at(0, 0, 1, turn).line([[-0.6, 0], [0.6, 0]], crumb, 0.16)


def _draw_dairy(pen: Pen) -> None:
    """A cheese wedge, a cup of milk from above, or a bottle of milk."""
    rng, china, milk = pen.rng, (226, 230, 238), (250, 247, 236)
    variant = rng.choice(3, p=(0.5, 0.25, 0.25))  # a class of a dozen pictures needs a main form
    if variant == 0:
        yellow = (246, 208, 96)
        top = np.array([[-0.95, 0.1], [0.75, -0.62], [0.95, 0.1]])
        front = np.array([[-0.95, 0.1], [0.95, 0.1], [0.95, 0.68], [-0.95, 0.62]])
        pen.piece(np.concatenate([top[:2], front[1:]]), yellow, 0.06)
        pen.shape(top, yellow, 1.12)
        pen.shape(front, yellow, 0.92)
        for spot in scatter(rng, 7, 0.75, 0.2) + [0.05, 0.38]:
            radius = rng.uniform(0.06, 0.14)
            pen.shape(oval(radius) + spot, yellow, 0.62)
            pen.shape(oval(radius * 0.8) + spot + [0.03, 0.03], yellow, 0.78)
        for x, y in ((0.3, -0.22), (0.65, -0.1)):
            pen.shape(oval(0.12, 0.07) + [x, y], yellow, 0.75)
    elif variant == 1:
        china = ((96, 140, 196), (206, 92, 84), (236, 232, 226), (110, 160, 128))[rng.integers(4)]
        handle = _arc(0.3, -1.5, 1.5) + [0.7, 0]
        pen.line(handle + [0.04, 0.06], china, 0.2, 0.4)
        pen.line(handle, china, 0.17)
        pen.piece(oval(0.78, points=40), china, 0.14)
        pen.shape(oval(0.66, points=36), china, 0.6)
        pen.shape(oval(0.62, points=36) + [0.02, 0.03], milk, 0.9)
        pen.shape(oval(0.54, points=36) + [0.05, 0.06], milk)
        for x, y in scatter(rng, 9, 0.5, 0.5):
            pen.line(_arc(rng.uniform(0.04, 0.09), 0, TAU) + [x, y], milk, 0.025, 0.82)
    else:
        neck = _arc(0.3, np.pi, TAU, 2) * [0.75, 1]
        belly = [[0.22, -0.35], [0.46, 0.0], [0.46, 0.9], [-0.46, 0.9], [-0.46, 0.0], [-0.22, -0.35]]
        pen.piece(np.concatenate([neck + [0, -0.6], belly]), china, 0.08)
        pen.shape(np.array([[-0.4, 0.05], [0.4, 0.05], [0.4, 0.85], [-0.4, 0.85]]), milk)
        cap = ((70, 120, 190), (200, 70, 70), (90, 160, 110))[rng.integers(3)]
        pen.piece(box(-0.3, -0.85, 0.3, -0.58), cap, 0.04)
        pen.shape(box(-0.4, 0.3, 0.4, 0.58), cap)
        pen.line([[-0.3, 0.1], [-0.3, 0.8]], (255, 255, 255), 0.06, 1.1)


def _draw_cherry(pen: Pen) -> None:
    pen.line([[0, 0], [0.3, -1.2], [0.9, -1.8]], (90, 110, 40), 0.2)
    pen.piece(oval(1), (200, 24, 42), 0.15)
    pen.shape(oval(0.25) + [-0.35, -0.4], (255, 220, 220))


def _draw_dessert(pen: Pen) -> None:
    """A slice of layer cake, a cupcake or a doughnut."""
    rng = pen.rng
    icing = ((240, 150, 176), (112, 66, 42), (252, 238, 214), (176, 206, 150))[rng.integers(4)]
    variant = rng.integers(3)
    if variant == 0:
        sponge = ((228, 186, 118), (120, 72, 48))[rng.integers(2)]
        pen.piece(box(-0.85, -0.4, 0.85, 0.72), sponge, 0.08)
        for y in (-0.02, 0.36):
            pen.shape(box(-0.84, y, 0.84, y + 0.13), (250, 236, 222))
        pen.piece(np.array([[-0.87, -0.3], [-0.45, -0.72], [0.95, -0.72], [0.87, -0.3]]), icing, 0.03)
        for x in np.linspace(-0.75, 0.75, 6):
            pen.shape(oval(0.14, rng.uniform(0.1, 0.26)) + [x, -0.3], icing)
        _draw_cherry(pen.at(0.2, -0.72, 0.2))
    elif variant == 1:
        cup = np.array([[-0.62, 0.1], [0.62, 0.1], [0.44, 0.9], [-0.44, 0.9]])
        paper = ((196, 84, 96), (84, 130, 180), (170, 120, 70))[rng.integers(3)]
        pen.piece(cup, paper, 0.06)
        for x in np.linspace(-0.5, 0.5, 6):
            pen.line([[x, 0.12], [x * 0.72, 0.88]], paper, 0.06, 1.3)
        for y, width in ((0.08, 0.78), (-0.2, 0.58), (-0.45, 0.36)):
            pen.piece(oval(width, 0.24) + [0, y], icing, 0.05)
        _draw_cherry(pen.at(0, -0.68, 0.19))
    else:
        pen.piece(blob(rng, 0.9, 0.88, 0.02), (206, 150, 84), 0.1)
        pen.piece(blob(rng, 0.78, 0.76, 0.05), icing, 0.04)
        for spot in scatter(rng, 34, 0.7, 0.7):
            colour = ((250, 220, 80), (90, 190, 220), (250, 250, 250), (230, 70, 90))[rng.integers(4)]
            pen.at(*spot, 0.1, TAU * rng.random()).line([[-0.6, 0], [0.6, 0]], colour, 0.5)
        pen.shape(oval(0.28), (120, 80, 44))
        pen.shape(oval(0.22) + [0.03, 0.04], (60, 44, 34))


def _draw_egg(pen: Pen) -> None:
    """One or two fried eggs, or boiled halves."""
    rng, white, yolk = pen.rng, (250, 246, 236), (246, 180, 48)
    if rng.random() < 0.6:
        for x in ((0.0,), (-0.42, 0.42))[rng.integers(2)]:
            part = pen.at(x, rng.normal(0, 0.12), 0.62 if x else 0.95)
            edge = blob(rng, 0.98, 0.86, 0.09)
            part.shape(edge * 1.04, (196, 140, 80))
            part.piece(edge, white, 0.05)
            part.at(*rng.normal(0, 0.12, 2)).piece(oval(0.38), yolk, 0.09)
            part.shape(oval(0.09, 0.06) + [-0.14, -0.16], (255, 250, 225))
    else:
        for turn in TAU * (rng.random() + np.arange(rng.integers(2, 5)) / 4):
            part = pen.at(0.5 * np.cos(turn), 0.5 * np.sin(turn), 0.48, turn)
            part.piece(oval(1, 0.76), white, 0.1)
            part.piece(oval(0.52) + [-0.12, 0], yolk, 0.04)


def _draw_fried(pen: Pen) -> None:
    """A heap of chips, breaded nuggets or onion rings."""
    rng, golden = pen.rng, (222, 166, 74)
    variant = rng.integers(3)
    if variant == 0:
        lean = TAU * rng.random()
        for x, y in scatter(rng, 20, 0.6, 0.5):
            part = pen.at(x, y, 1, lean + rng.normal(0, 0.5))
            length = rng.uniform(0.32, 0.58)
            part.piece(box(-length, -0.085, length, 0.085), golden, 0.06)
            part.shape(box(-length, -0.08, length, -0.02), golden, 1.16)
    elif variant == 1:
        for turn in TAU * (rng.random() + np.arange(rng.integers(4, 6)) / 5):
            part = pen.at(0.52 * np.cos(turn), 0.46 * np.sin(turn), 0.45, TAU * rng.random())
            part.piece(blob(rng, 1, 0.72, 0.09), golden, 0.16)
            for spot in scatter(rng, 26, 0.85, 0.58):
                part.shape(oval(rng.uniform(0.05, 0.12), 0.06, 7) + spot, golden, rng.choice([0.62, 0.75, 1.25]))
    else:
        for x, y in scatter(rng, 6, 0.55, 0.5):
            part, radius = pen.at(x, y), rng.uniform(0.26, 0.42)
            ring = blob(rng, radius, radius * 0.9, 0.04)
            ring = np.concatenate([ring, ring[:3]])
            part.line(ring + [0.05, 0.06], golden, 0.2, 0.45)
            part.line(ring, golden, 0.2, 0.9)
            part.line(ring - 0.02, golden, 0.09, 1.15)


def _draw_meat(pen: Pen) -> None:
    """A grilled steak with its rim of fat, sausages, or drumsticks."""
    rng, fat = pen.rng, (240, 216, 190)
    brown = ((146, 66, 52), (128, 72, 44), (170, 78, 66))[rng.integers(3)]
    variant = rng.integers(3)
    if variant == 0:
        edge = blob(rng, 0.95, 0.66, 0.07)
        pen.piece(edge, fat, 0.1)
        pen.piece(edge * [0.88, 0.8] + [0.02, 0.04], brown, 0.03)
        for spot in scatter(rng, 9, 0.6, 0.36):
            run = np.cumsum(rng.normal(0, 0.07, (5, 2)), axis=0) + spot
            pen.line(run, fat, 0.035, 0.9)
        if rng.random() < 0.6:
            for x in np.linspace(-0.5, 0.5, 4):
                pen.line([[x - 0.14, 0.38], [x + 0.14, -0.36]], (58, 30, 22), 0.075)
        if rng.random() < 0.5:
            pen.line([[-0.1, -0.52], [-0.02, 0.05]], fat, 0.14, 1.05)
    elif variant == 1:
        for y in np.linspace(-0.45, 0.45, rng.integers(2, 4)):
            bend = _arc(1.4, -2.2, -0.94) * [1, 0.7] + [0, y + 0.98]
            pen.line(bend + [0.05, 0.08], (40, 22, 16), 0.36)
            pen.line(bend, brown, 0.34, 0.8)
            pen.line(bend - [0.01, 0.04], brown, 0.24, 1.05)
            pen.line(bend[3:-3] - [0.03, 0.09], brown, 0.05, 1.6)
            for cut in bend[2:-1:3]:
                pen.line([cut + [-0.08, 0.1], cut + [0.06, -0.12]], brown, 0.05, 0.45)
    else:
        for x in ((0.0,), (-0.4, 0.42))[rng.integers(2)]:
            part = pen.at(x, 0, 0.72 if x else 0.95, 0.6 + rng.normal(0, 0.3))
            part.line([[0, 0.3], [0, 0.85]], fat, 0.17, 1.03)
            for knob in (-0.1, 0.1):
                part.piece(oval(0.12) + [knob, 0.92], fat, 0.03)
            pear = oval(0.6, 0.75, 40)
            pear[:, 0] *= 1 - 0.42 * pear[:, 1]
            part.piece(pear + [0, -0.28], (186, 106, 52), 0.12)


def _draw_noodles(pen: Pen) -> None:
    """A nest of wavy strands, often with tomato sauce or meat balls."""
    rng, pasta = pen.rng, (240, 206, 128)
    pen.shape(oval(0.86), pasta, 0.5)
    for _ in range(rng.integers(34, 46)):
        radius, start = 0.82 * np.sqrt(rng.random()), TAU * rng.random()
        centre = rng.normal(0, 0.1, 2) * (1 - radius)
        angle = start + np.linspace(0, rng.uniform(1.2, 3.2), 22)
        wave = radius + 0.045 * np.sin(rng.uniform(4, 9) * angle + start)
        strand = np.stack([wave * np.cos(angle), wave * np.sin(angle)], axis=1) + centre
        pen.line(strand + [0.015, 0.025], pasta, 0.105, 0.5)
        pen.line(strand, pasta, 0.075, rng.uniform(0.88, 1.1))
    topping = rng.random()
    if topping < 0.4:
        pen.piece(blob(rng, 0.4, 0.34, 0.12), (190, 52, 30), 0.04)
    if topping < 0.25:
        for spot in scatter(rng, 3, 0.3, 0.3):
            pen.piece(oval(0.15) + spot, (120, 66, 40), 0.06)
    elif topping > 0.7:
        for spot in scatter(rng, 14, 0.7, 0.7):
            pen.shape(oval(0.06, 0.04, 8) + spot, (70, 130, 50))


def _draw_rice(pen: Pen) -> None:
    """A mound of grains, plain or fried with peas and carrot, or a triangle with a strip of seaweed."""
    rng = pen.rng
    grain = ((246, 242, 230), (246, 242, 230), (232, 202, 140))[rng.integers(3)]
    pressed = rng.random() < 0.2
    corners = np.array([[0.0, -0.95], [0.95, 0.7], [-0.95, 0.7]])
    mound = blob(rng, 0.9, 0.74, 0.04)
    if pressed:  # a triangle with round corners
        facing = zip((-1.57, 0.52, 2.62), corners)
        mound = np.concatenate([_arc(0.26, a - 1.05, a + 1.05) + 0.72 * corner for a, corner in facing])
    pen.piece(mound, grain, 0.12)
    spots = scatter(rng, 900, 1, 1)
    inside = spots[_inside_polygon(spots, mound * 0.93)][:200]
    for spot, angle, gain in zip(inside, TAU * rng.random(200), rng.uniform(0.94, 1.08, 200)):
        c, s = np.cos(angle), np.sin(angle)
        outline = oval(0.07, 0.034, 8) @ [[c, s], [-s, c]] + spot
        pen.shape(outline + [0.018, 0.026], grain, 0.66)
        pen.shape(outline, grain, gain)
    if pressed:
        pen.shape(box(-0.3, 0.2, 0.3, 0.88), (34, 46, 36))
    elif rng.random() < 0.5:
        for x, y in scatter(rng, 16, 0.7, 0.56):
            pen.shape(oval(0.055) + [x, y], ((96, 160, 60), (230, 126, 40))[rng.integers(2)])


def _inside_polygon(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """(n,) bool by the crossing rule."""
    (x, y), start, stop = points.T[:, :, None], polygon, np.roll(polygon, -1, axis=0)
    straddles = (start[:, 1] > y) != (stop[:, 1] > y)
    rise = np.where(stop[:, 1] == start[:, 1], 1e-9, stop[:, 1] - start[:, 1])
    crossing = start[:, 0] + (y - start[:, 1]) / rise * (stop[:, 0] - start[:, 0])
    return (straddles & (x < crossing)).sum(axis=1) % 2 == 1


def _draw_prawn(pen: Pen, pink: Colour) -> None:
    blade = np.array([[0, 0], [0.7, -0.22], [0.85, 0], [0.7, 0.22]])
    for turn in np.linspace(0.4, 3.2, 7):
        pen.at(0, 0, 1, turn).line([[0.5, 0], [0.19, 0]], pink, 0.05, 0.8)  # a leg
    for fan in (-0.5, 0.0, 0.5):
        pen.at(0.58, -0.45, 0.5, fan - 0.9).piece(blade, (206, 66, 44), 0.04)
    for step, turn in enumerate(np.linspace(-0.6, 3.7, 9)):
        size = 0.2 + 0.13 * step / 8
        colour = pink if step % 2 else tuple(min(255, c + 34) for c in pink)
        pen.at(0.62 * np.cos(turn), 0.62 * np.sin(turn), size, turn).piece(oval(1.15, 0.85), colour, 0.1)
    pen.line([[-0.5, -0.4], [-0.1, -0.95], [0.5, -1.0]], pink, 0.04, 0.8)
    pen.shape(oval(0.07) + [-0.52, -0.42], (24, 18, 18))


def _draw_fish(pen: Pen, skin: Colour) -> None:
    pen.piece(np.array([[0.55, 0], [1.05, -0.42], [0.92, 0], [1.05, 0.42]]), skin, 0.05)
    pen.piece(np.array([[-0.25, -0.3], [0.1, -0.6], [0.35, -0.2]]), skin, 0.04)
    x = np.linspace(-1, 0.68, 20)
    half = 0.4 * np.sin(np.pi * np.linspace(0.06, 0.93, 20)) ** 0.8
    pen.piece(np.concatenate([np.stack([x, -half], 1), np.stack([x, half], 1)[::-1]]), skin, 0.07)
    for column in np.linspace(-0.35, 0.4, 5):
        for y in np.arange(-0.2, 0.3, 0.14):
            pen.line(_arc(0.08, 1.2, 5.1, 7) + [column, y * (1 - 0.5 * abs(column))], skin, 0.03, 0.68)
    pen.line(_arc(0.32, -0.9, 0.9) + [-0.86, 0], skin, 0.05, 0.55)
    pen.shape(oval(0.09) + [-0.78, -0.09], (245, 245, 240))
    pen.shape(oval(0.05) + [-0.78, -0.09], (16, 16, 20))


def _draw_seafood(pen: Pen) -> None:
    """Curled prawns or a fish."""
    rng = pen.rng
    if rng.random() < 0.55:
        pink = ((236, 140, 108), (226, 112, 84), (240, 170, 150))[rng.integers(3)]
        several = rng.random() < 0.6
        spots = ((-0.45, -0.25), (0.4, 0.35), (0.5, -0.5))[: rng.integers(2, 4)] if several else ((0.0, 0.0),)
        for x, y in spots:
            _draw_prawn(pen.at(x, y, 0.5 if several else 0.9, rng.normal(0, 0.7)), pink)
    else:
        skin = ((150, 172, 190), (214, 130, 84), (176, 160, 120))[rng.integers(3)]
        for y in ((0.0,), (-0.38, 0.38))[int(rng.random() < 0.3)]:
            _draw_fish(pen.at(0, y, 0.8 if y else 1.0, rng.normal(0, 0.1)), skin)


def _draw_soup(pen: Pen) -> None:
    """A bowl from above: liquid to the brim, bits that float, sometimes a swirl of cream and a spoon."""
    rng = pen.rng
    bowl = ((236, 234, 228), (92, 112, 140), (120, 70, 50), (60, 60, 66), (214, 190, 150))[rng.integers(5)]
    broth = ((206, 84, 40), (226, 150, 52), (150, 160, 74), (150, 92, 48), (236, 214, 164))[rng.integers(5)]
    pen.piece(oval(0.98), bowl, 0.12)
    pen.shape(oval(0.86), bowl, 0.6)
    pen.shape(oval(0.8) + [0.01, 0.02], broth, 0.88)
    pen.shape(oval(0.7) + [0.03, 0.04], broth)
    pen.shape(oval(0.3, 0.14) + [-0.28, -0.46], (255, 255, 255), 1.0, 70)
    if rng.random() < 0.45:
        turn = np.linspace(0, 2.2 * TAU, 50)
        pen.line(np.stack([0.035 * turn * np.cos(turn), 0.035 * turn * np.sin(turn)], 1), (252, 244, 226), 0.07)
    bits = (
        (oval(1, 0.9), (236, 120, 40)),
        (box(-0.9, -0.8, 0.9, 0.8), (216, 170, 96)),
        (oval(1, 0.5), (90, 150, 60)),
    )
    for x, y in scatter(rng, rng.integers(5, 12), 0.6, 0.6):
        outline, colour = bits[rng.integers(3)]
        pen.at(x, y, rng.uniform(0.09, 0.15), TAU * rng.random()).piece(outline, colour, 0.2)
    if rng.random() < 0.4:
        spoon = pen.at(0.25, 0.1, 1.0, rng.uniform(-1.2, 0.4))
        spoon.line([[0.2, 0], [1.25, 0]], (150, 152, 160), 0.1)
        spoon.line([[0.2, -0.01], [1.25, -0.01]], (220, 222, 228), 0.05)


def _draw_leaf(pen: Pen, green: Colour) -> None:
    x = np.linspace(-1, 1, 14)
    half = 0.42 * np.cos(x * 1.45) * (1 + 0.16 * np.cos(11 * x))
    pen.piece(np.concatenate([np.stack([x, -half], 1), np.stack([x, half], 1)[::-1]]), green, 0.09)
    pen.line([[-1, 0], [0.85, 0]], green, 0.06, 1.45)
    for foot in (-0.5, -0.1, 0.3):
        for side in (-1, 1):
            pen.line([[foot, 0], [foot + 0.25, 0.26 * side]], green, 0.04, 1.35)


def draw_round(pen: Pen, kind: int) -> None:
    """A tomato half, an orange slice, a cucumber slice or a whole apple, of unit radius."""
    flesh = ((206, 48, 36), (242, 152, 44), (176, 206, 120), (196, 40, 44))[kind]
    if kind == 3:
        pen.piece(oval(0.95), flesh, 0.16)
        pen.line([[0, -0.6], [0.1, -1.15]], (90, 60, 34), 0.16)
        pen.shape(oval(0.3, 0.16) + [0.38, -1.0], (96, 150, 58))
        return
    pen.piece(oval(1), ((168, 30, 26), (236, 130, 30), (60, 112, 50))[kind], 0.12)
    pen.shape(oval(0.84), flesh, (1.08, 1.12, 1.1)[kind])
    for turn in np.linspace(0, TAU, 7)[:-1]:
        part = pen.at(0.45 * np.cos(turn), 0.45 * np.sin(turn), 1, turn)
        part.shape(oval(0.28, 0.16, 12), flesh, (1.45, 0.9, 0.84)[kind])


def _draw_vegetable(pen: Pen) -> None:
    """A salad: veined leaves with rounds of tomato, orange, cucumber or apple among them."""
    rng = pen.rng
    green = ((96, 150, 58), (70, 120, 52), (140, 176, 76))[rng.integers(3)]
    for turn in TAU * (rng.random() + np.arange(rng.integers(5, 8)) / 7):
        _draw_leaf(pen.at(0.46 * np.cos(turn), 0.46 * np.sin(turn), 0.54, turn + rng.normal(0, 0.4)), green)
    kinds = rng.integers(4, size=2)
    for x, y in scatter(rng, rng.integers(2, 6), 0.5, 0.5):
        draw_round(pen.at(x, y, rng.uniform(0.22, 0.32), TAU * rng.random()), int(rng.choice(kinds)))


DISHES = (
    _draw_bread,
    _draw_dairy,
    _draw_dessert,
    _draw_egg,
    _draw_fried,
    _draw_meat,
    _draw_noodles,
    _draw_rice,
    _draw_seafood,
    _draw_soup,
    _draw_vegetable,
)
