//! Texts in batches of like length, so that little of a batch is padding.

use tch::Tensor;

/// Indices of `lengths` in batches, shortest first: each padded to its longest stays within `budget` tokens, or holds one
/// text.
pub(crate) fn pack(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| lengths[i]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * lengths[i] <= budget => batch.push(i),
            _ => batches.push(vec![i]),
        }
    }
    batches
}

/// For each text, its place in the batches one after the other: what brings results back into the order of the texts.
pub(crate) fn in_order(batches: &[Vec<usize>]) -> Tensor {
    let order: Vec<usize> = batches.concat();
    let mut place = vec![0i64; order.len()];
    for (at, text) in order.into_iter().enumerate() {
        place[text] = at as i64;
    }
    Tensor::from_slice(&place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_the_budget_and_every_text_once() {
        let lengths: Vec<usize> = (0..3000).map(|i| 3 + (i * 37) % 250).collect();
        let batches = pack(&lengths, 4096);
        for batch in &batches {
            let longest = batch.iter().map(|&i| lengths[i]).max().expect("a batch has a text");
            assert!(batch.len() * longest <= 4096);
        }
        let padded: usize = batches.iter().map(|b| b.len() * lengths[b[b.len() - 1]]).sum();
        let all: usize = lengths.iter().sum();
        assert!(padded < all + all / 20, "{padded} cells for {all} tokens");
        let places = Vec::<i64>::try_from(in_order(&batches)).expect("numbers");
        let order = batches.concat();
        assert!(places.iter().enumerate().all(|(text, &at)| order[at as usize] == text));
        assert_eq!(pack(&[5000], 4096), [[0]]);
        assert!(pack(&[], 4096).is_empty());
    }
}
