//! Regions pooled from a patch map (method.md 2.5, 2.7), differentiable in the map.
//!
//! Both poolings are weighted sums over the cells of the map. RoIAlign's bilinear samples lie on a grid whose rows and
//! columns are independent, so a box's weights are the outer product of two short vectors, and the pooled feature is
//! one batched matrix product, forward and backward.

use tch::{Kind, Tensor};

/// RoIAlign to 1x1 as `torchvision.ops.roi_align(map, boxes * [w, h, w, h], (1, 1), 1.0, -1, aligned=True)`.
///
/// `map` [B, C, h, w] fp32, `boxes` [B, 4] xyxy in 0..1 of the square, one a map -> [B, C]. A box without area yields
/// the zero vector.
pub fn roi_align(map: &Tensor, boxes: &Tensor) -> Tensor {
    let size = map.size();
    weighted_sum(&map.flatten(2, 3), &roi_weights(boxes, size[2], size[3]))
}

/// Mask pooling: `sum F m / (sum m + 1e-12)` with `m` the mask area-resized to the map (CLIPSelf's `mask_pool`).
///
/// `map` [B, C, h, w] fp32, `mask` [B, 1, S, S] in 0..1 (not normalized) -> [B, C].
pub fn mask_pool(map: &Tensor, mask: &Tensor) -> Tensor {
    let size = map.size();
    weighted_sum(&map.flatten(2, 3), &mask_weights(mask, size[2], size[3]))
}

/// Weights [B, h*w] of [`roi_align`].
pub fn roi_weights(boxes: &Tensor, height: i64, width: i64) -> Tensor {
    let boxes = boxes.to_kind(Kind::Float);
    let corner = |i: i64| boxes.narrow(1, i, 1);
    let across = axis_weights(&corner(0), &corner(2), width);
    let down = axis_weights(&corner(1), &corner(3), height);
    (down.unsqueeze(2) * across.unsqueeze(1)).flatten(1, 2)
}

/// Weights [B, h*w] of [`mask_pool`].
pub fn mask_weights(mask: &Tensor, height: i64, width: i64) -> Tensor {
    let m = mask.to_kind(Kind::Float).adaptive_avg_pool2d([height, width]).flatten(1, 3);
    let total = m.sum_dim_intlist([1i64].as_slice(), true, Kind::Float) + 1e-12;
    m / total
}

/// `features` [B, K, cells], `weights` [B, cells] -> [B, K].
pub fn weighted_sum(features: &Tensor, weights: &Tensor) -> Tensor {
    features.bmm(&weights.unsqueeze(2)).squeeze_dim(2)
}

/// The mean bilinear weight [B, cells] of each cell along one axis, for boxes from `start` to `end` ([B, 1], 0..1).
///
/// In cell units, shifted by the half cell of `aligned`: `n = ceil(length)` samples at `start + (i + 1/2) length / n`.
/// A sample outside [-1, cells] counts with value zero; within, it is clamped to the centres of the border cells. The
/// order of fp32 operations is torchvision's, because `ceil` magnifies a last-bit difference to a whole sample.
fn axis_weights(start: &Tensor, end: &Tensor, cells: i64) -> Tensor {
    let options = (Kind::Float, start.device());
    let start = start * cells as f64 - 0.5;
    let length = (end * cells as f64 - 0.5) - &start;
    let count = length.ceil();
    // A box in 0..1 is at most `cells` long; rounding may add one sample.
    let index = Tensor::arange(cells + 1, options);
    let at = &start + (&index + 0.5) * (&length / count.clamp_min(1.0));
    let counted = index.lt_tensor(&count).logical_and(&at.ge(-1.0)).logical_and(&at.le(cells as f64));
    let at = at.clamp(0.0, (cells - 1) as f64).unsqueeze(2);
    let hat = (-(at - Tensor::arange(cells, options)).abs() + 1.0).clamp_min(0.0);
    let sum = (hat * counted.unsqueeze(2).to_kind(Kind::Float)).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    sum / count.clamp_min(1.0)
}
