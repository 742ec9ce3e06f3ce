"""Compiled kernels that turn spherical harmonics into colours, forward and backward.

Bases are those of gsplat (Sloan, "Efficient Spherical Harmonic Evaluation", JCGT 2013).
"""

import math

import numpy as np

from hiersplat.gaussians.compiling import kernel

_SH1 = 0.48860251190292
_SH2 = (1.092548430592079, 0.9461746957575601, 0.3153915652525201, 0.5462742152960395)
_SH3 = (
    2.285228997322329,
    0.4570457994644658,
    1.445305721320277,
    1.865881662950577,
    1.119528997770346,
    0.5900435899266435,
)


@kernel(inline=True)
def _bases(degree, x, y, z, out):
    """Write the spherical harmonics of a unit vector."""
    out[0] = 0.2820947917738781
    if degree < 1:
        return
    out[1], out[2], out[3] = -_SH1 * y, _SH1 * z, -_SH1 * x
    if degree < 2:
        return
    zz, c1, s1 = z * z, x * x - y * y, 2.0 * x * y
    out[4], out[8] = _SH2[3] * s1, _SH2[3] * c1
    out[5], out[7] = -_SH2[0] * z * y, -_SH2[0] * z * x
    out[6] = _SH2[1] * zz - _SH2[2]
    if degree < 3:
        return
    ring = -_SH3[0] * zz + _SH3[1]
    out[9], out[15] = -_SH3[5] * (x * s1 + y * c1), -_SH3[5] * (x * c1 - y * s1)
    out[10], out[14] = _SH3[2] * z * s1, _SH3[2] * z * c1
    out[11], out[13] = ring * y, ring * x
    out[12] = z * (_SH3[3] * zz - _SH3[4])


@kernel(inline=True)
def _along_bases(degree, x, y, z, g):
    """Return the gradient of ``sum(g * bases)`` by x, y and z, taken as independent."""
    if degree < 1:
        return 0.0, 0.0, 0.0
    vx, vy, vz = -_SH1 * g[3], -_SH1 * g[1], _SH1 * g[2]
    if degree > 1:
        vx += _SH2[3] * 2.0 * (y * g[4] + x * g[8]) - _SH2[0] * z * g[7]
        vy += _SH2[3] * 2.0 * (x * g[4] - y * g[8]) - _SH2[0] * z * g[5]
        vz += -_SH2[0] * (y * g[5] + x * g[7]) + 2.0 * _SH2[1] * z * g[6]
    if degree > 2:
        zz, c1, s1 = z * z, x * x - y * y, 2.0 * x * y
        ring, ring_z = -_SH3[0] * zz + _SH3[1], -2.0 * _SH3[0] * z
        vx += -3.0 * _SH3[5] * (s1 * g[9] + c1 * g[15]) + ring * g[13]
        vy += -3.0 * _SH3[5] * (c1 * g[9] - s1 * g[15]) + ring * g[11]
        vx += _SH3[2] * z * 2.0 * (y * g[10] + x * g[14])
        vy += _SH3[2] * z * 2.0 * (x * g[10] - y * g[14])
        vz += _SH3[2] * (s1 * g[10] + c1 * g[14]) + ring_z * (y * g[11] + x * g[13])
        vz += (3.0 * _SH3[3] * zz - _SH3[4]) * g[12]
    return vx, vy, vz


@kernel(inline=True)
def _direction(means, i, centre):
    x, y, z = means[3 * i] - centre[0], means[3 * i + 1] - centre[1], means[3 * i + 2] - centre[2]
    inverse = 1.0 / max(math.sqrt(x * x + y * y + z * z), 1e-12)
    return x * inverse, y * inverse, z * inverse, inverse


@kernel
def colors_forward(share, num_shares, means, centre, sh, num_bases, degree, radii, colors):
    """Evaluate one share of the colours that a camera sees, clamped at zero."""
    count = len(radii)
    bases = np.zeros(16)
    used = (degree + 1) ** 2
    for i in range(count * share // num_shares, count * (share + 1) // num_shares):
        if radii[i] <= 0:
            continue
        x, y, z, _ = _direction(means, i, centre)
        _bases(degree, x, y, z, bases)
        red = green = blue = 0.5
        at = i * num_bases * 3
        for k in range(used):
            red += bases[k] * sh[at + 3 * k]
            green += bases[k] * sh[at + 3 * k + 1]
            blue += bases[k] * sh[at + 3 * k + 2]
        colors[3 * i] = max(red, 0.0)
        colors[3 * i + 1] = max(green, 0.0)
        colors[3 * i + 2] = max(blue, 0.0)


@kernel
def colors_backward(
    share,
    num_shares,
    means,
    centre,
    sh,
    num_bases,
    degree,
    radii,
    colors,
    grad_colors,
    grad_means,
    grad_centre,
    grad_sh,
):
    """Add the gradients of one share of the Gaussians' colours, as seen from one camera."""
    count = len(radii)
    bases = np.zeros(16)
    slopes = np.zeros(16)
    used = (degree + 1) ** 2
    move = 3 * share
    for i in range(count * share // num_shares, count * (share + 1) // num_shares):
        if radii[i] <= 0:
            continue
        # A channel clamped at zero passes nothing on.
        red = np.float64(grad_colors[3 * i]) if colors[3 * i] > 0 else 0.0
        green = np.float64(grad_colors[3 * i + 1]) if colors[3 * i + 1] > 0 else 0.0
        blue = np.float64(grad_colors[3 * i + 2]) if colors[3 * i + 2] > 0 else 0.0
        if red == 0.0 and green == 0.0 and blue == 0.0:
            continue
        x, y, z, inverse = _direction(means, i, centre)
        _bases(degree, x, y, z, bases)
        at = i * num_bases * 3
        for k in range(used):
            grad_sh[at + 3 * k] += bases[k] * red
            grad_sh[at + 3 * k + 1] += bases[k] * green
            grad_sh[at + 3 * k + 2] += bases[k] * blue
            slopes[k] = (
                sh[at + 3 * k] * red + sh[at + 3 * k + 1] * green + sh[at + 3 * k + 2] * blue
            )
        vx, vy, vz = _along_bases(degree, x, y, z, slopes)
        radial = vx * x + vy * y + vz * z
        vx, vy, vz = (
            (vx - radial * x) * inverse,
            (vy - radial * y) * inverse,
            (vz - radial * z) * inverse,
        )
        grad_means[3 * i] += vx
        grad_means[3 * i + 1] += vy
        grad_means[3 * i + 2] += vz
        grad_centre[move] -= vx
        grad_centre[move + 1] -= vy
        grad_centre[move + 2] -= vz
