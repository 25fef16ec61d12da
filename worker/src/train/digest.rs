//! A digest of parameters and moments: two ranks with equal bits have equal digests, on any device.
//!
//! A tensor's bits are cut into words, its words into rows. A row's sum of word times key, modulo 2^64, is taken where
//! the tensor lies: keys are odd, so one word that changes always changes the sum, and random, so that several words
//! that change or change places leave it alone with a chance of 2^-32 at most (all of them in their highest bits) and of
//! 2^-63 as a rule. The sums come to the host in one copy and are folded there with the tensors' names, types and shapes.

use pixfleet_cluster::rng;
use tch::{Device, Kind, TchError, Tensor};

use super::error::TrainError;

/// Words in a row. Part of the result.
const ROW: i64 = 1 << 15;
/// Rows that are multiplied at a time on a CPU: 2 MiB of products, which its caches hold.
const CPU_ROWS: i64 = 8;
/// Rows that are multiplied at a time elsewhere: 32 MiB of products.
const DEVICE_ROWS: i64 = 128;
/// Where the keys are drawn from. Part of the result.
const KEY_SEED: u64 = 0x7069_7866_6c65_6574;

/// The digest of `tensors`, all of one device, in whatever order they come. Extra memory is one block of rows; a tensor
/// that is not contiguous is copied for as long as its rows are summed.
///
/// # Errors
/// [`TrainError::Torch`] if a device fails.
pub(crate) fn digest(tensors: &[(String, Tensor)]) -> Result<u64, TrainError> {
    let sums = all_sums(tensors).map_err(|source| TrainError::Torch { doing: "taking the state's digest", source })?;
    let mut sums = sums.as_slice();
    let mut folded: Vec<(&str, u64)> = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (own, rest) = sums.split_at(rows_of(words_in(tensor)));
        sums = rest;
        folded.push((name, fold(name, tensor, own)));
    }
    folded.sort_unstable();
    Ok(rng::key(&folded.into_iter().map(|(_, digest)| digest).collect::<Vec<_>>()))
}

/// One tensor's row sums with what the sums do not know.
fn fold(name: &str, tensor: &Tensor, sums: &[u64]) -> u64 {
    let about = format!("{name} {:?} {:?}", tensor.kind(), tensor.size());
    let hash = blake3::hash(about.as_bytes());
    let about = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
    rng::key(&[about, rng::key(sums)])
}

/// The sums of all rows of all tensors, one after the other.
fn all_sums(tensors: &[(String, Tensor)]) -> Result<Vec<u64>, TchError> {
    let Some((_, first)) = tensors.first() else { return Ok(Vec::new()) };
    let device = first.device();
    let mut bench = Bench::on(device, if device == Device::Cpu { CPU_ROWS } else { DEVICE_ROWS })?;
    let mut sums = vec![Tensor::f_zeros([0], (Kind::Int64, device))?];
    for (_, tensor) in tensors {
        bench.row_sums(tensor, &mut sums)?;
    }
    let sums = Tensor::f_cat(&sums, 0)?.f_to_device(Device::Cpu)?;
    Ok(Vec::<i64>::try_from(&sums)?.into_iter().map(i64::cast_unsigned).collect())
}

/// Odd numbers, one for each word of a row.
fn keys() -> Tensor {
    let odd = |word: i64| (rng::key(&[KEY_SEED, word.cast_unsigned()]) | 1).cast_signed();
    Tensor::from_slice(&(0..ROW).map(odd).collect::<Vec<_>>())
}

/// The widest words that each element is a whole number of, and that products of 64 bits lose no bit of.
fn word_kind(tensor: &Tensor) -> (Kind, usize) {
    match tensor.kind().elt_size_in_bytes() {
        1 => (Kind::Int8, 1),
        2 => (Kind::Int16, 1),
        bytes => (Kind::Int, bytes / 4),
    }
}

fn words_in(tensor: &Tensor) -> i64 {
    (tensor.numel() * word_kind(tensor).1) as i64
}

/// Rows that so many words fill, the last one perhaps in part.
fn rows_of(words: i64) -> usize {
    (words.cast_unsigned()).div_ceil(ROW.cast_unsigned()) as usize
}

/// What rows are multiplied on: one block of memory for all tensors.
struct Bench {
    keys: Tensor,
    products: Tensor,
    rows: i64,
}

impl Bench {
    fn on(device: Device, rows: i64) -> Result<Self, TchError> {
        Ok(Self {
            keys: keys().f_to_device(device)?,
            products: Tensor::f_empty([rows, ROW], (Kind::Int64, device))?,
            rows,
        })
    }

    fn row_sums(&mut self, tensor: &Tensor, sums: &mut Vec<Tensor>) -> Result<(), TchError> {
        let words = tensor.f_detach()?.f_contiguous()?.f_view([-1i64])?.f_view_dtype(word_kind(tensor).0)?;
        let (whole, tail) = (words_in(tensor) / ROW, words_in(tensor) % ROW);
        let rows = words.f_narrow(0, 0, whole * ROW)?.f_view([whole, ROW])?;
        let mut start = 0;
        while start < whole {
            let count = self.rows.min(whole - start);
            sums.push(self.block(&rows.f_narrow(0, start, count)?)?);
            start += count;
        }
        if tail > 0 {
            sums.push(self.block(&words.f_narrow(0, whole * ROW, tail)?.f_unsqueeze(0)?)?);
        }
        Ok(())
    }

    /// The sums of some rows of `[rows, words]`.
    fn block(&mut self, rows: &Tensor) -> Result<Tensor, TchError> {
        let (count, words) = rows.size2()?;
        let mut products = self.products.f_narrow(0, 0, count)?.f_narrow(1, 0, words)?;
        products.f_copy_(rows)?;
        let products = products.f_mul_(&self.keys.f_narrow(0, 0, words)?)?;
        products.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)
    }
}

#[cfg(test)]
mod tests;
