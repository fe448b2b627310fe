"""Arithmetic with floats: five bodies that attract each other."""

from itertools import combinations
from math import sqrt


class Body:
    def __init__(self, mass, position, velocity):
        self.mass = mass
        self.position = position
        self.velocity = velocity


def bodies():
    return [
        Body(39.47, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        Body(0.0377, [4.84, -1.16, -0.10], [0.60, 2.81, -0.02]),
        Body(0.0113, [8.34, 4.12, -0.40], [-1.01, 1.82, 0.008]),
        Body(0.0017, [12.89, -15.11, -0.22], [1.08, 0.86, -0.01]),
        Body(0.0020, [15.37, -25.9, 0.18], [0.97, 0.59, -0.03]),
    ]


def step(pairs, everything, dt):
    for one, other in pairs:
        x = one.position[0] - other.position[0]
        y = one.position[1] - other.position[1]
        z = one.position[2] - other.position[2]
        square = x * x + y * y + z * z
        pull = dt / (square * sqrt(square))
        to_one, to_other = other.mass * pull, one.mass * pull
        velocity = one.velocity
        velocity[0] -= x * to_one
        velocity[1] -= y * to_one
        velocity[2] -= z * to_one
        velocity = other.velocity
        velocity[0] += x * to_other
        velocity[1] += y * to_other
        velocity[2] += z * to_other
    for body in everything:
        for axis in range(3):
            body.position[axis] += dt * body.velocity[axis]


def main():
    everything = bodies()
    pairs = list(combinations(everything, 2))
    for _ in range(1500):
        step(pairs, everything, 0.01)
    return round(everything[0].position[0], 6)
