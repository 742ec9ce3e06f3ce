"""Compiled kernels that project Gaussians into a camera, forward and backward.

Formulas are those of gsplat's ``persp_proj``, written out for one Gaussian at a time. Numbers are
kept as float32 and worked on as float64: the determinant of a long, thin ellipse loses most digits
of a float32, and scalars cost the same in either.
"""

import math

import numpy as np

from hiersplat.gaussians.compiling import kernel


@kernel(inline=True)
def _rotation(quats, i):
    w, x, y, z = (
        np.float64(quats[4 * i]),
        np.float64(quats[4 * i + 1]),
        np.float64(quats[4 * i + 2]),
        np.float64(quats[4 * i + 3]),
    )
    inverse = 1.0 / max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    return (
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
        (2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
        (2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
        (w, x, y, z),
        inverse,
    )


@kernel(inline=True)
def _in_camera(means, i, view):
    x, y, z = np.float64(means[3 * i]), np.float64(means[3 * i + 1]), np.float64(means[3 * i + 2])
    return (
        view[0] * x + view[1] * y + view[2] * z + view[3],
        view[4] * x + view[5] * y + view[6] * z + view[7],
        view[8] * x + view[9] * y + view[10] * z + view[11],
    )


@kernel(inline=True)
def _slopes(x, y, z, K, width, height):
    """Return x/z and y/z, clamped to a little more than the image, and whether they were."""
    fx, fy, cx, cy = K[0], K[4], K[2], K[5]
    spare_x, spare_y = 0.15 * width / fx, 0.15 * height / fy
    u, v = x / z, y / z
    clamped_u = min(max(u, -(cx / fx + spare_x)), (width - cx) / fx + spare_x)
    clamped_v = min(max(v, -(cy / fy + spare_y)), (height - cy) / fy + spare_y)
    return clamped_u, clamped_v, clamped_u != u, clamped_v != v


@kernel(inline=True)
def _onto_image(view, fx, fy, z, u, v):
    """Return the 2 x 3 matrix from small steps in the world to steps in the image."""
    a, b = fx / z, fy / z
    return (
        (
            a * (view[0] - u * view[8]),
            a * (view[1] - u * view[9]),
            a * (view[2] - u * view[10]),
        ),
        (
            b * (view[4] - v * view[8]),
            b * (view[5] - v * view[9]),
            b * (view[6] - v * view[10]),
        ),
    )


@kernel(inline=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel(inline=True)
def _symmetric(covars, i, v):
    """Return the product of a symmetric matrix (six numbers) with a vector."""
    o = 6 * i
    xx, xy, xz = np.float64(covars[o]), np.float64(covars[o + 1]), np.float64(covars[o + 2])
    yy, yz, zz = np.float64(covars[o + 3]), np.float64(covars[o + 4]), np.float64(covars[o + 5])
    return (
        xx * v[0] + xy * v[1] + xz * v[2],
        xy * v[0] + yy * v[1] + yz * v[2],
        xz * v[0] + yz * v[1] + zz * v[2],
    )


@kernel(inline=True)
def _image_covariance(quats, scales, covars, i, first, second):
    """Return the covariance in the image (xx, xy, yy), without blur."""
    if len(covars) > 0:
        along = _symmetric(covars, i, first)
        a, b = _dot(first, along), _dot(second, along)
        c = _dot(second, _symmetric(covars, i, second))
        return a, b, c
    r0, r1, r2, _, _ = _rotation(quats, i)
    a = b = c = 0.0
    for axis in range(3):
        s = np.float64(scales[3 * i + axis])
        p = (first[0] * r0[axis] + first[1] * r1[axis] + first[2] * r2[axis]) * s
        q = (second[0] * r0[axis] + second[1] * r1[axis] + second[2] * r2[axis]) * s
        a += p * p
        b += p * q
        c += q * q
    return a, b, c


@kernel
def project_forward(
    share,
    num_shares,
    means,
    quats,
    scales,
    covars,
    view,
    K,
    width,
    height,
    eps2d,
    near,
    far,
    radius_clip,
    radii,
    means2d,
    depths,
    conics,
    compensations,
):
    """Project one share of the Gaussians into one camera; ``radii`` stay 0 for what is not seen.

    ``covars`` holds six numbers per Gaussian, or nothing where ``quats`` and ``scales`` count.
    """
    count = len(radii)
    fx, fy, cx, cy = K[0], K[4], K[2], K[5]
    for i in range(count * share // num_shares, count * (share + 1) // num_shares):
        x, y, z = _in_camera(means, i, view)
        # Written so that not-a-number fails the test.
        if not (z >= near and z <= far):
            continue
        u, v, _, _ = _slopes(x, y, z, K, width, height)
        first, second = _onto_image(view, fx, fy, z, u, v)
        a, b, c = _image_covariance(quats, scales, covars, i, first, second)
        before = a * c - b * b
        a += eps2d
        c += eps2d
        determinant = a * c - b * b
        if not (determinant > 0.0 and determinant < np.inf):
            continue
        middle = 0.5 * (a + c)
        radius = math.ceil(3.0 * math.sqrt(middle + math.sqrt(max(0.01, middle**2 - determinant))))
        image_x, image_y = fx * x / z + cx, fy * y / z + cy
        if (
            not radius > radius_clip
            or not image_x + radius > 0.0
            or not image_x - radius < width
            or not image_y + radius > 0.0
            or not image_y - radius < height
        ):
            continue
        radii[i] = np.int32(min(radius, 1e9))
        means2d[2 * i], means2d[2 * i + 1] = image_x, image_y
        depths[i] = z
        conics[3 * i] = c / determinant
        conics[3 * i + 1] = -b / determinant
        conics[3 * i + 2] = a / determinant
        compensations[i] = math.sqrt(max(before / determinant, 0.0))


@kernel
def project_backward(
    share,
    num_shares,
    means,
    quats,
    scales,
    covars,
    view,
    K,
    width,
    height,
    eps2d,
    radii,
    compensations,
    grad_means2d,
    grad_depths,
    grad_conics,
    grad_compensations,
    grad_means,
    grad_quats,
    grad_scales,
    grad_covars,
    grad_view,
):
    """Add the gradients of one share of the Gaussians, as seen from one camera.

    ``grad_compensations`` may be empty. ``grad_view`` holds twelve numbers of the view matrix per
    share, so that shares never write to the same place.
    """
    count = len(radii)
    fx, fy = K[0], K[4]
    turn = 12 * share
    for i in range(count * share // num_shares, count * (share + 1) // num_shares):
        if radii[i] <= 0:
            continue
        x, y, z = _in_camera(means, i, view)
        u, v, held_u, held_v = _slopes(x, y, z, K, width, height)
        first, second = _onto_image(view, fx, fy, z, u, v)
        # From conics back to covariances in the image: -inv(S) G inv(S), with the inverse found
        # anew, since that of a needle does not survive in float32.
        a, b, c = _image_covariance(quats, scales, covars, i, first, second)
        a += eps2d
        c += eps2d
        determinant = a * c - b * b
        p, q, r = c / determinant, -b / determinant, a / determinant
        g0, g1, g2 = (
            np.float64(grad_conics[3 * i]),
            0.5 * grad_conics[3 * i + 1],
            np.float64(grad_conics[3 * i + 2]),
        )
        left0, left1 = p * g0 + q * g1, p * g1 + q * g2
        low0, low1 = q * g0 + r * g1, q * g1 + r * g2
        va = -(left0 * p + left1 * q)
        vb = -(left0 * q + left1 * r)
        vc = -(low0 * q + low1 * r)
        if len(grad_compensations) > 0:
            factor = np.float64(compensations[i])
            scale = 0.5 * grad_compensations[i] / (factor + 1e-6)
            rest, spread = 1.0 - factor * factor, eps2d * (p * r - q * q)
            va += scale * (rest * p - spread)
            vb += scale * rest * q
            vc += scale * (rest * r - spread)

        t0 = t1 = t2 = 0.0  # gradient of the first row of the matrix onto the image
        b0 = b1 = b2 = 0.0  # and of the second
        if len(covars) > 0:
            along, below = _symmetric(covars, i, first), _symmetric(covars, i, second)
            t0, t1, t2 = (
                2.0 * (va * along[0] + vb * below[0]),
                2.0 * (va * along[1] + vb * below[1]),
                2.0 * (va * along[2] + vb * below[2]),
            )
            b0, b1, b2 = (
                2.0 * (vb * along[0] + vc * below[0]),
                2.0 * (vb * along[1] + vc * below[1]),
                2.0 * (vb * along[2] + vc * below[2]),
            )
            at = 6 * i
            for row in range(3):
                for column in range(row, 3):
                    value = (
                        va * first[row] * first[column]
                        + vb * (first[row] * second[column] + second[row] * first[column])
                        + vc * second[row] * second[column]
                    )
                    # Off the diagonal one number stands for two entries.
                    grad_covars[at] += value if row == column else 2.0 * value
                    at += 1
        else:
            r0, r1, r2, unit, inverse = _rotation(quats, i)
            w_, x_, y_, z_ = unit
            n00 = n01 = n02 = n10 = n11 = n12 = n20 = n21 = n22 = 0.0
            for axis in range(3):
                s = np.float64(scales[3 * i + axis])
                m0, m1, m2 = r0[axis], r1[axis], r2[axis]
                along = (first[0] * m0 + first[1] * m1 + first[2] * m2) * s
                below = (second[0] * m0 + second[1] * m1 + second[2] * m2) * s
                ga = 2.0 * (va * along + vb * below)
                gb = 2.0 * (vb * along + vc * below)
                t0 += ga * m0 * s
                t1 += ga * m1 * s
                t2 += ga * m2 * s
                b0 += gb * m0 * s
                b1 += gb * m1 * s
                b2 += gb * m2 * s
                v0 = first[0] * ga + second[0] * gb
                v1 = first[1] * ga + second[1] * gb
                v2 = first[2] * ga + second[2] * gb
                grad_scales[3 * i + axis] += v0 * m0 + v1 * m1 + v2 * m2
                if axis == 0:
                    n00, n10, n20 = v0 * s, v1 * s, v2 * s
                elif axis == 1:
                    n01, n11, n21 = v0 * s, v1 * s, v2 * s
                else:
                    n02, n12, n22 = v0 * s, v1 * s, v2 * s
            qw = 2.0 * (x_ * (n21 - n12) + y_ * (n02 - n20) + z_ * (n10 - n01))
            qx = 2.0 * (
                -2.0 * x_ * (n11 + n22) + y_ * (n01 + n10) + z_ * (n02 + n20) + w_ * (n21 - n12)
            )
            qy = 2.0 * (
                x_ * (n01 + n10) - 2.0 * y_ * (n00 + n22) + z_ * (n12 + n21) + w_ * (n02 - n20)
            )
            qz = 2.0 * (
                x_ * (n02 + n20) + y_ * (n12 + n21) - 2.0 * z_ * (n00 + n11) + w_ * (n10 - n01)
            )
            # Only the part across the quaternion turns; its length does not matter.
            radial = qw * w_ + qx * x_ + qy * y_ + qz * z_
            grad_quats[4 * i] += (qw - radial * w_) * inverse
            grad_quats[4 * i + 1] += (qx - radial * x_) * inverse
            grad_quats[4 * i + 2] += (qy - radial * y_) * inverse
            grad_quats[4 * i + 3] += (qz - radial * z_) * inverse

        # The matrix onto the image is J R with J = (fx/z, 0, -u fx/z; 0, fy/z, -v fy/z).
        a, b = fx / z, fy / z
        j00 = t0 * view[0] + t1 * view[1] + t2 * view[2]
        j02 = t0 * view[8] + t1 * view[9] + t2 * view[10]
        j11 = b0 * view[4] + b1 * view[5] + b2 * view[6]
        j12 = b0 * view[8] + b1 * view[9] + b2 * view[10]
        gx, gy = np.float64(grad_means2d[2 * i]), np.float64(grad_means2d[2 * i + 1])
        cam_x, cam_y = a * gx, b * gy
        cam_z = -(a * x * gx + b * y * gy) / z + grad_depths[i]
        cam_z += -(a * j00 + b * j11) / z + (a * u * j02 + b * v * j12) / z
        # d(-u fx/z): through u = x/z unless it was clamped.
        if not held_u:
            cam_x += -a / z * j02
            cam_z += a * u / z * j02
        if not held_v:
            cam_y += -b / z * j12
            cam_z += b * v / z * j12
        grad_means[3 * i] += view[0] * cam_x + view[4] * cam_y + view[8] * cam_z
        grad_means[3 * i + 1] += view[1] * cam_x + view[5] * cam_y + view[9] * cam_z
        grad_means[3 * i + 2] += view[2] * cam_x + view[6] * cam_y + view[10] * cam_z

        px, py, pz = (
            np.float64(means[3 * i]),
            np.float64(means[3 * i + 1]),
            np.float64(means[3 * i + 2]),
        )
        grad_view[turn] += cam_x * px + a * t0
        grad_view[turn + 1] += cam_x * py + a * t1
        grad_view[turn + 2] += cam_x * pz + a * t2
        grad_view[turn + 3] += cam_x
        grad_view[turn + 4] += cam_y * px + b * b0
        grad_view[turn + 5] += cam_y * py + b * b1
        grad_view[turn + 6] += cam_y * pz + b * b2
        grad_view[turn + 7] += cam_y
        grad_view[turn + 8] += cam_z * px - a * u * t0 - b * v * b0
        grad_view[turn + 9] += cam_z * py - a * u * t1 - b * v * b1
        grad_view[turn + 10] += cam_z * pz - a * u * t2 - b * v * b2
        grad_view[turn + 11] += cam_z
