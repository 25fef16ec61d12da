//! An encoder on each device; batches of texts of like length are dealt out to whichever is free.

use super::encoder::{Chosen, Encoder, EncoderError};
use pixfleet_model::ModelError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tch::{Cuda, Device, Tensor};

/// Texts of a batch; an encoder cuts it further by tokens. After each, a stop is noticed.
const TEXTS: usize = 64;

/// A batch's texts by their place, and their vectors.
type Encoded = Vec<(usize, Vec<f32>)>;

pub(super) struct Pool {
    chosen: Chosen,
    /// Loaded where there is something to encode.
    encoders: Vec<Encoder>,
}

impl Pool {
    pub(super) fn new(chosen: Chosen) -> Self {
        Self { chosen, encoders: Vec::new() }
    }

    /// On every GPU that is visible, or on the CPU.
    fn load(&mut self) -> Result<(), EncoderError> {
        let gpus = (0..Cuda::device_count().max(0) as usize).map(Device::Cuda);
        let devices: Vec<Device> = if Cuda::is_available() { gpus.collect() } else { vec![Device::Cpu] };
        for device in devices {
            self.encoders.push(self.chosen.load(device)?);
        }
        Ok(())
    }

    /// One vector for each text, in their order; `told` gets each batch before it is encoded.
    pub(super) fn encode(
        &mut self,
        texts: &[String],
        stop: &AtomicBool,
        told: &(dyn Fn(&[&str]) + Sync),
    ) -> Result<Vec<Vec<f32>>, EncoderError> {
        if self.encoders.is_empty() {
            self.load()?;
        }
        let mut order: Vec<usize> = (0..texts.len()).collect();
        // The longest first: what is left at the end is short, so no device waits long for another.
        order.sort_by_key(|&i| std::cmp::Reverse(texts[i].len()));
        let deal = Deal { texts, batches: order.chunks(TEXTS).collect(), next: AtomicUsize::new(0), stop, told };
        let mut all: Encoded = match self.encoders.as_slice() {
            // The caller's own thread has libtorch's threads already.
            [encoder] => deal.work(encoder)?,
            _ => deal.share(&mut self.encoders)?,
        };
        all.sort_by_key(|(i, _)| *i);
        Ok(all.into_iter().map(|(_, vector)| vector).collect())
    }
}

struct Deal<'a> {
    texts: &'a [String],
    batches: Vec<&'a [usize]>,
    next: AtomicUsize,
    stop: &'a AtomicBool,
    told: &'a (dyn Fn(&[&str]) + Sync),
}

impl Deal<'_> {
    fn share(&self, encoders: &mut [Encoder]) -> Result<Encoded, EncoderError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = encoders.iter_mut().map(|encoder| scope.spawn(move || self.work(encoder))).collect();
            let mut all = Encoded::new();
            for thread in threads {
                all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(all)
        })
    }

    fn work(&self, encoder: &Encoder) -> Result<Encoded, EncoderError> {
        let mut mine = Encoded::new();
        while let Some(batch) = self.batches.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EncoderError::Stopped);
            }
            let texts: Vec<&str> = batch.iter().map(|&i| self.texts[i].as_str()).collect();
            (self.told)(&texts);
            let vectors = rows(&encoder.encode(&texts)?)?;
            mine.extend(batch.iter().copied().zip(vectors));
        }
        Ok(mine)
    }
}

/// [n, width] as n vectors.
fn rows(vectors: &Tensor) -> Result<Vec<Vec<f32>>, ModelError> {
    let width = vectors.size2()?.1.max(1) as usize;
    let flat = Vec::<f32>::try_from(vectors.f_flatten(0, -1)?)?;
    Ok(flat.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::super::clip::tests::folder;
    use super::*;
    use pixfleet_model::Compute;
    use std::sync::atomic::AtomicU64;

    fn pool(devices: usize, weights: &std::path::Path) -> Pool {
        let chosen = || Chosen::Clip { weights: weights.to_owned(), compute: Compute::FP32, name: "clip".to_owned() };
        let load = |_| chosen().load(Device::Cpu).expect("a good folder");
        Pool { chosen: chosen(), encoders: (0..devices).map(load).collect() }
    }

    #[test]
    fn several_devices_give_what_one_gives_in_the_order_of_the_texts() {
        let folder = folder();
        let texts: Vec<String> = (0..300).map(|i| format!("thing {i} {}", "and so on ".repeat(i * 7 % 11))).collect();
        let told = AtomicU64::new(0);
        let count = |batch: &[&str]| {
            told.fetch_add(batch.len() as u64, Ordering::Relaxed);
        };
        let go = AtomicBool::new(false);
        let one = pool(1, folder.path()).encode(&texts, &go, &count).expect("vectors");
        let three = pool(3, folder.path()).encode(&texts, &go, &count).expect("vectors");
        assert_eq!((one.len(), told.load(Ordering::Relaxed)), (300, 600));
        assert_eq!(one, three);
        for i in [0, 150, 299] {
            let alone = pool(1, folder.path()).encode(&texts[i..=i], &go, &|_| {}).expect("a vector");
            let apart = alone[0].iter().zip(&one[i]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-5, "text {i}: {apart:e}");
        }
    }

    #[test]
    fn a_stop_is_noticed_between_batches() {
        let folder = folder();
        let texts: Vec<String> = (0..300).map(|i| format!("thing {i}")).collect();
        let stop = AtomicBool::new(false);
        let told = AtomicU64::new(0);
        let press = |batch: &[&str]| {
            told.fetch_add(batch.len() as u64, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
        };
        let ended = pool(1, folder.path()).encode(&texts, &stop, &press);
        assert!(matches!(ended, Err(EncoderError::Stopped)));
        assert_eq!(told.into_inner(), TEXTS as u64);
    }
}
