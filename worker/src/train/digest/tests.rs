use super::*;

/// Words of a block on the CPU and a bit: several blocks, a row in part.
const LONG: i64 = ROW * CPU_ROWS + ROW + 3;

fn named(name: &str, tensor: Tensor) -> (String, Tensor) {
    (name.into(), tensor)
}

fn of(tensor: &Tensor) -> u64 {
    digest(&[named("w", tensor.shallow_clone())]).expect("digested")
}

/// As `tensor`, with one element's bits changed.
fn with_bits<const N: usize>(tensor: &Tensor, at: i64, change: impl Fn(&mut [u8; N])) -> Tensor {
    let mut bytes = vec![0u8; tensor.numel() * N];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    change(bytes.as_chunks_mut::<N>().0.get_mut(at as usize).expect("an element"));
    Tensor::from_data_size(&bytes, &tensor.size(), tensor.kind())
}

fn ramp(words: i64) -> Tensor {
    Tensor::arange(words, (Kind::Float, Device::Cpu)) * 0.37 - 5.0
}

/// First and last element, and those on both sides of every border of rows and blocks.
fn borders(words: i64) -> Vec<i64> {
    let rows = (1..=words / ROW).flat_map(|row| [row * ROW - 1, row * ROW]);
    [0, words - 1].into_iter().chain(rows.filter(|&at| at < words)).collect()
}

#[test]
fn equal_bits_are_equal_in_any_order_and_layout() {
    let (a, b) = (ramp(10), ramp(7).to_kind(Kind::BFloat16));
    let one = digest(&[named("a", a.copy()), named("b", b.copy())]).expect("digested");
    assert_eq!(one, digest(&[named("b", b), named("a", a)]).expect("digested"));
    let wide = ramp(LONG * 2).view([LONG, 2]);
    assert_eq!(of(&wide.tr().contiguous().tr()), of(&wide), "strides are not bits");
    assert_eq!(of(&wide.set_requires_grad(true)), of(&wide.detach()));
}

#[test]
fn the_digest_does_not_change_between_versions() {
    let state = [
        named("param/w", ramp(3 * ROW + 7)),
        named("adam_v/w", ramp(5).to_kind(Kind::BFloat16)),
        named("step", Tensor::from(7i64)),
        named("none", Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))),
    ];
    assert_eq!(format!("{:016x}", digest(&state).expect("digested")), "76250ebec34fe552");
}

#[test]
fn rows_are_summed_as_one_would_by_hand_whatever_the_blocks() {
    let tensor = ramp(LONG);
    let words = Vec::<i32>::try_from(tensor.view_dtype(Kind::Int)).expect("on the host");
    let keys = Vec::<i64>::try_from(keys()).expect("on the host");
    let sum = |row: &[i32]| {
        row.iter().zip(&keys).fold(0i64, |sum, (word, key)| sum.wrapping_add(i64::from(*word).wrapping_mul(*key)))
    };
    let by_hand: Vec<i64> = words.chunks(ROW as usize).map(sum).collect();
    assert_eq!(by_hand.len(), rows_of(LONG));
    for rows_at_once in [1, CPU_ROWS, DEVICE_ROWS] {
        let mut sums = Vec::new();
        let mut bench = Bench::on(Device::Cpu, rows_at_once).expect("memory");
        bench.row_sums(&tensor, &mut sums).expect("summed");
        assert_eq!(Vec::<i64>::try_from(Tensor::cat(&sums, 0)).expect("on the host"), by_hand, "{rows_at_once}");
    }
}

#[test]
fn every_single_bit_counts() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Int64, Kind::Double, Kind::Uint8, Kind::Bool] {
        let tensor = (ramp(9) + 60.0).to_kind(kind);
        let before = of(&tensor);
        let mut seen = std::collections::HashSet::from([before]);
        let bits = kind.elt_size_in_bytes() * 8;
        for at in 0..9 {
            for bit in 0..bits {
                let flip = |bytes: &mut [u8]| bytes[bit / 8] ^= 1 << (bit % 8);
                let changed = match kind.elt_size_in_bytes() {
                    1 => with_bits::<1>(&tensor, at, |b| flip(b)),
                    2 => with_bits::<2>(&tensor, at, |b| flip(b)),
                    4 => with_bits::<4>(&tensor, at, |b| flip(b)),
                    _ => with_bits::<8>(&tensor, at, |b| flip(b)),
                };
                assert!(seen.insert(of(&changed)), "{kind:?}: bit {bit} of element {at}");
            }
        }
    }
}

#[test]
fn bits_at_the_borders_of_rows_and_blocks_count() {
    let tensor = ramp(LONG);
    let mut seen = std::collections::HashSet::from([of(&tensor)]);
    for at in borders(LONG) {
        for bit in [0, 31] {
            let changed = with_bits::<4>(&tensor, at, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            assert!(seen.insert(of(&changed)), "bit {bit} of element {at}");
        }
    }
    assert!(seen.len() > 20, "the borders were visited");
}

#[test]
fn zeros_and_nans_differ_by_their_bits() {
    let of_bits = |bits: u32| of(&Tensor::from_data_size(&bits.to_le_bytes(), &[1], Kind::Float));
    let bits = [0u32, 1 << 31, 0x7FC0_0000, 0x7FC0_0001, 0x7F80_0001, 0xFFC0_0000];
    let digests: std::collections::HashSet<u64> = bits.iter().map(|&bits| of_bits(bits)).collect();
    assert_eq!(digests.len(), bits.len());
}

#[test]
fn places_count() {
    let tensor = ramp(LONG);
    let before = of(&tensor);
    let swapped = |a: i64, b: i64| {
        let order = Tensor::arange(LONG, (Kind::Int64, Device::Cpu));
        let _ = (order.get(a).fill_(b), order.get(b).fill_(a));
        tensor.index_select(0, &order)
    };
    // Within a row, across rows at the same place of each, across blocks, and into the row that is not full.
    for (a, b) in [(0, 1), (5, ROW + 5), (0, ROW * CPU_ROWS), (2, LONG - 1)] {
        assert_ne!(of(&swapped(a, b)), before, "{a} and {b}");
    }
    // The same rows in another order.
    let rows = ramp(4 * ROW).view([4, ROW]);
    let turned = rows.flip([0]);
    assert_ne!(of(&rows), of(&turned));
    // A sign on either of two elements: the widest words differ in their highest bit alone.
    let ones = Tensor::ones([64], (Kind::Float, Device::Cpu));
    let signs: std::collections::HashSet<u64> =
        (0..64).map(|at| of(&with_bits::<4>(&ones, at, |bytes| bytes[3] ^= 1 << 7))).collect();
    assert_eq!(signs.len(), 64);
}

#[test]
fn names_types_and_shapes_count() {
    let (a, b) = (ramp(10), ramp(10) + 1.0);
    let pair = |x: &Tensor, y: &Tensor| digest(&[named("x", x.copy()), named("y", y.copy())]).expect("digested");
    assert_ne!(pair(&a, &b), pair(&b, &a), "tensors changed places");
    let of_name = |name: &str| digest(&[named(name, a.copy())]).expect("digested");
    assert_ne!(of_name("x"), of_name("y"));
    assert_ne!(of(&a), of(&a.view([2, 5])));
    assert_ne!(of(&a), of(&a.view_dtype(Kind::Int)));
    let zeros = |words: i64| Tensor::zeros([words], (Kind::Float, Device::Cpu));
    assert_ne!(of(&zeros(3)), of(&zeros(4)));
    let empty = named("e", zeros(0));
    assert_ne!(digest(&[empty]).expect("digested"), digest(&[]).expect("digested"), "an empty tensor is there");
}
