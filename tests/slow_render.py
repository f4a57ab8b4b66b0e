"""`jaxcrnn.render.render.paint` once more, in plain NumPy float64, pixel by pixel and without a table."""

import math

import jax
import numpy as np

from jaxcrnn.render.atlas import EM, SIZE
from jaxcrnn.render.render import FINE, SOFT


def paint(look, tiles, advances, present, labels, height, columns):
    """The image ``[H,W]`` and the width of one line; ``labels`` are those of the line alone."""
    look = jax.tree.map(lambda v: np.asarray(v, np.float64), look)
    chars, place = [], look.margins[0] * look.em
    tiles = tiles[0]  # the plain ones; what is soft is made here
    for i, c in enumerate(labels):
        font = max(
            (f for f in range(len(tiles)) if present[f, c] or not present[:, c].any()),
            key=lambda f: (look.fonts[f] if present[f, c] else -1, -f),
        )
        wide = advances[font, c] * look.sizes[i]
        room = max(wide + look.gaps[i], 0.2) * look.em * look.narrow
        chars.append([tiles[font, c] / 255, place, place + room, wide, look.em * look.sizes[i], look.rises[i]])
        place += room
    natural = place + look.margins[1] * look.em
    squeeze = min(1.0, columns / natural)
    width = math.ceil(natural * squeeze - 1e-3) if labels else 0
    kernel = max(SOFT, key=lambda soft: (EM / (look.em * look.narrow * squeeze) >= soft[1], soft[1]))[0]
    for char in chars:
        soft = np.apply_along_axis(lambda line: np.convolve(line, kernel, "same"), 1, char[0] * 255)
        char[0] = np.round(soft) / 255
    ink = np.zeros((height, columns))
    for row in range(height):
        for column in range(columns):
            x, y = unwarped(look, row, column, width, height)
            at = max(0, min(columns * FINE - 1, math.trunc(x * FINE)))
            middle_of_cell = (at + 0.5) / FINE
            inside = [char for char in chars if middle_of_cell < char[2] * squeeze] or chars[-1:]
            value = glyph(inside[0], x, y, look, squeeze) if inside else 0.0
            ink[row, column] = value
    ink = weighed(ink, look.weight)
    for row in range(height):
        for column in range(columns):
            x, y = unwarped(look, row, column, width, height)
            ink[row, column] = max(ink[row, column], ruled(look, x, y, width))
    ink = blurred(reduced(ink, float(look.lowres)), float(look.blur))
    image = look.paper + texture(look.texture, height, columns) + ink * (look.ink - look.paper) + look.noise
    image = quantised(image, float(look.blocks))
    if look.invert:
        image = -image
    image = np.clip(image, -1, 1)
    image[:, width:] = 1
    return image, width


def unwarped(look, row, column, width, height):
    half = max(width / 2, 1.0)
    y = row - ((height - 1) / 2 + look.offset)
    x = column + 0.5 - half
    angle = look.rotation * min(1.0, 3 * height / half)
    x, y = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    far = 1 + look.perspective[0] * x / half + look.perspective[1] * y / height
    across, along, phase_y, phase_x = look.wave
    line_x = (
        x * (1 + abs(look.perspective[0])) / far + look.slant * y + along * math.sin(math.pi * x / height + phase_x)
    )
    return line_x + half, y / far + across * math.sin(math.pi * x / (2 * height) + phase_y)


def glyph(char, x, y, look, squeeze):
    tile, start, _, wide, size, rise = char
    middle = start * squeeze + 0.5 * wide * look.em * look.narrow * squeeze
    u = (x - middle) / (size * look.narrow * squeeze) * EM + (SIZE - 1) / 2
    v = (y / size - rise) * EM + (SIZE - 1) / 2
    left, top, value = math.floor(u), math.floor(v), 0.0
    for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= r < SIZE and 0 <= c < SIZE:
            value += tile[r, c] * (1 - abs(u - c)) * (1 - abs(v - r))
    return value


def weighed(ink, weight):
    out = ink.copy()
    for row in range(len(ink)):
        for column in range(ink.shape[1]):
            near = [ink[row, column]]
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                near.append(ink[r, c] if 0 <= r < len(ink) and 0 <= c < ink.shape[1] else 0.0)
            other = max(near) if weight > 0 else min(near)
            out[row, column] += abs(weight) * (other - ink[row, column])
    return out


def ruled(look, x, y, width):
    half, best = look.em / 2, 0.0
    for side, (strength, place, thickness, tilt) in enumerate(look.rules):
        if side < 2:
            away = y - (-1, 1)[side] * half * (1.02 + 0.25 * place) - tilt * (x - width / 2)
        else:
            away = x - (0.15 * look.em * place if side == 2 else width - 1 - 0.15 * look.em * place) - tilt * y
        best = max(best, strength * min(1.0, max(0.0, thickness / 2 + 0.5 - abs(away))))
    return best


def reduced(ink, factor):
    def line(values):
        n = len(values)
        cells = []
        for k in range(math.floor((n - 1) / factor) + 1):
            middle = (k + 0.5) * factor - 0.5
            weights = [max(0.0, 1 - abs(i - middle) / factor) for i in range(n)]
            cells.append(sum(w * v for w, v in zip(weights, values, strict=True)) / max(sum(weights), 1e-6))
        out = []
        for i in range(n):
            at = min(max((i + 0.5) / factor - 0.5, 0.0), len(cells) - 1)
            low = min(math.floor(at), len(cells) - 1)
            high = min(low + 1, len(cells) - 1)
            out.append(cells[low] * (1 - (at - low)) + cells[high] * (at - low))
        return out

    return np.apply_along_axis(line, 1, np.apply_along_axis(line, 0, ink))


def blurred(ink, deviation):
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / max(deviation, 1e-3)) ** 2)
    kernel /= kernel.sum()
    rows = np.apply_along_axis(lambda line: np.convolve(line, kernel, "same"), 0, ink)
    return np.apply_along_axis(lambda line: np.convolve(line, kernel, "same"), 1, rows)


def texture(grid, height, columns):
    out = np.zeros((height, columns))
    for row in range(height):
        for column in range(columns):
            v, u = row * (len(grid) - 1) / (height - 1), column / height * 3
            last = grid.shape[1] - 1
            u = last - abs(u % (2 * last) - last)
            top, left = min(int(v), len(grid) - 2), min(int(u), last - 1)
            r, c = v - top, u - left
            above = (1 - c) * grid[top, left] + c * grid[top, left + 1]
            below = (1 - c) * grid[top + 1, left] + c * grid[top + 1, left + 1]
            out[row, column] = (1 - r) * above + r * below
    return out


def quantised(image, step):
    from scipy.fft import dctn, idctn

    out = image.copy()
    steps = step * (1 + np.add.outer(np.arange(8), np.arange(8))) / 2
    if step <= 1e-4:
        return out
    for row in range(0, len(image), 8):
        for column in range(0, image.shape[1], 8):
            coefficients = dctn(image[row : row + 8, column : column + 8], norm="ortho")
            out[row : row + 8, column : column + 8] = idctn(np.round(coefficients / steps) * steps, norm="ortho")
    return out
