//! Positions for long texts out of CLIP's 77: Long-CLIP's rule, which FG-CLIP took over (method.md 4.1).

use tch::Tensor;

use crate::error::ModelError;

/// How many positions stay as they are; texts rarely reached beyond them when CLIP was trained. In the long path the
/// first so many rows are read from `position_embedding_ori`, all others from `position_embedding_res`.
pub const KEPT_POSITIONS: i64 = 20;

/// New positions between two old ones, and after the last.
const FACTOR: i64 = 4;

/// How many positions `short` become: 248 for 77.
pub(super) fn stretched(short: i64, keep: i64) -> i64 {
    keep + FACTOR * (short - keep)
}

/// Stretches a table [n, W] to [4n - 3 keep, W]: the first `keep` rows stay, every later gap gets three interpolated
/// rows, and the last row is followed by three that go on in the direction of its step.
///
/// # Errors
/// If the table is not of two dimensions, or has no two rows beyond the kept ones.
pub fn stretch_positions(table: &Tensor, keep: i64) -> Result<Tensor, ModelError> {
    let (rows, width) = match table.size()[..] {
        [rows, width] if (0..=rows - 2).contains(&keep) => (rows, width),
        _ => {
            let expected = format!("[at least {}, width]", keep + 2);
            return Err(ModelError::Shape { what: "position table".to_owned(), expected, found: table.size() });
        }
    };
    let beyond = table.narrow(0, keep, rows - keep);
    let last = table.narrow(0, rows - 1, 1);
    let onward = &last * 2.0 - table.narrow(0, rows - 2, 1);
    let next = Tensor::cat(&[&table.narrow(0, keep + 1, rows - keep - 1), &onward], 0);
    let steps: Vec<Tensor> =
        (0..FACTOR).map(|k| (&beyond * (FACTOR - k) as f64 + &next * k as f64) / FACTOR as f64).collect();
    let between = Tensor::stack(&steps, 1).reshape([FACTOR * (rows - keep), width]);
    Ok(Tensor::cat(&[table.narrow(0, 0, keep), between], 0))
}
