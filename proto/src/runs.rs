//! Ascending numbers in few words: members and ranks mostly follow one another, so a list of them is told as pairs of a first
//! number and how many follow it, itself included. Ten thousand members that joined one after the other are two numbers.

use crate::error::Malformed;

/// Most numbers that a list may stand for: what is told in a few bytes must not take all memory.
const NUMBERS_MAX: u64 = 1 << 20;

/// The list as pairs.
pub(crate) fn runs(numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut runs: Vec<u64> = Vec::new();
    for number in numbers {
        match &mut runs[..] {
            [.., first, count] if *first + *count == number => *count += 1,
            _ => runs.extend([number, 1]),
        }
    }
    runs
}

/// The list that the pairs in `field` stand for.
pub(crate) fn numbers(runs: &[u64], field: &'static str) -> Result<Vec<u64>, Malformed> {
    let (pairs, rest) = runs.as_chunks::<2>();
    let malformed = Malformed { field, problem: "is no list of pairs of a number and a count" };
    let mut numbers = Vec::new();
    for &[first, count] in pairs {
        let end = first.checked_add(count).filter(|_| numbers.len() as u64 + count.min(NUMBERS_MAX) <= NUMBERS_MAX);
        let Some(end) = end.filter(|_| count > 0 && count <= NUMBERS_MAX) else { return Err(malformed) };
        numbers.extend(first..end);
    }
    if rest.is_empty() { Ok(numbers) } else { Err(malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_as_it_was() {
        let ten_thousand: Vec<u64> = (1_000_001..1_010_001).collect();
        assert_eq!(runs(ten_thousand.iter().copied()), [1_000_001, 10_000]);
        for list in [vec![], vec![7], vec![1, 2, 3, 9, 4, 5, 4], ten_thousand] {
            assert_eq!(numbers(&runs(list.iter().copied()), "members").expect("a list"), list);
        }
    }

    #[test]
    fn a_list_that_would_take_all_memory_is_refused() {
        for bad in [vec![1], vec![1, 0], vec![u64::MAX, 2], vec![0, NUMBERS_MAX + 1], vec![0, NUMBERS_MAX, 0, 1]] {
            assert!(numbers(&bad, "members").is_err(), "{bad:?}");
        }
    }
}
