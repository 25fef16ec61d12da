use super::*;

/// Four texts against four regions; regions 0, 1, 2 are of one image, region 3 is alone in its own.
const SIMS: [f32; 16] = [
    0.9, 0.1, 0.2, 0.3, // right first
    0.5, 0.4, 0.3, 0.6, // right third of all, second in its image
    0.1, 0.2, 0.8, 0.8, // ties with region 3
    0.9, 0.8, 0.7, 0.6, // right last
];

fn image_of(i: usize) -> Range<usize> {
    if i < 3 { 0..3 } else { 3..4 }
}

fn places() -> Places {
    let mut places = Places::default();
    places.add_block(&SIMS[..8], 4, image_of);
    places.add_block(&SIMS[8..], 4, image_of);
    places
}

#[test]
fn places_of_a_hand_made_matrix() {
    let above: Vec<(usize, usize)> = places().all.iter().map(|p| (p.above, p.ties)).collect();
    assert_eq!(above, [(0, 0), (2, 0), (0, 1), (3, 0)]);
    let within: Vec<(usize, usize)> = places().in_image.iter().map(|p| (p.above, p.ties)).collect();
    assert_eq!(within, [(0, 0), (1, 0), (0, 0), (0, 0)]);
}

#[test]
fn recall_shares_ties_fairly() {
    let recall = Recall::of(&places().all);
    assert_eq!(recall.r1, (1.0 + 0.0 + 0.5 + 0.0) / 4.0);
    assert_eq!(recall.r5, 1.0);
    assert_eq!(recall.r10, 1.0);
    assert_eq!(recall.median_rank, 3.0);
}

#[test]
fn the_choice_in_an_image_counts_only_images_with_a_choice() {
    assert_eq!(choice_in_image(&places(), image_of), 2.0 / 3.0);
    assert!((chance_in_image(4, image_of) - 1.0 / 3.0).abs() < 1e-12);
}

#[test]
fn one_embedding_for_everything_scores_chance() {
    let (n, k) = (40, 4);
    let image_of = |i: usize| i / k * k..i / k * k + k;
    let mut places = Places::default();
    places.add_block(&vec![0.25; n * n], n, image_of);
    let (recall, chance) = (Recall::of(&places.all), Recall::chance(n));
    for (got, wanted) in [(recall.r1, chance.r1), (recall.r5, chance.r5), (recall.r10, chance.r10)] {
        assert!((got - wanted).abs() < 1e-12, "{got} is not {wanted}");
    }
    assert!((choice_in_image(&places, image_of) - 0.25).abs() < 1e-12);
    assert!((recall.median_rank - chance.median_rank).abs() < 1e-12);
}

#[test]
fn the_other_direction_reads_the_transposed_matrix() {
    let transposed: Vec<f32> = (0..16).map(|i| SIMS[i % 4 * 4 + i / 4]).collect();
    let mut places = Places::default();
    places.add_block(&transposed, 4, image_of);
    let above: Vec<(usize, usize)> = places.all.iter().map(|p| (p.above, p.ties)).collect();
    // Region 0 has 0.9, 0.5, 0.1, 0.9: its own text ties with text 3.
    assert_eq!(above, [(0, 1), (1, 0), (0, 0), (1, 1)]);
}

#[test]
fn not_a_number_never_wins() {
    assert_eq!(AnswerRank::of(&[f32::NAN, 0.1, 0.2], 0), AnswerRank { above: 2, ties: 0 });
    assert_eq!(AnswerRank::of(&[f32::NAN, 0.1, 0.2], 2), AnswerRank { above: 0, ties: 0 });
    assert_eq!(AnswerRank::of(&[f32::NAN, f32::NAN], 0).hit(1), 0.5);
    assert_eq!(top(&[f32::NAN, 0.1, 0.2], 3), [2, 1]);
}

#[test]
fn top_is_best_first_and_stable() {
    assert_eq!(top(&[0.1, 0.9, 0.5, 0.9, 0.2], 3), [1, 3, 2]);
    assert_eq!(top(&[0.1, 0.9], 5), [1, 0]);
    assert!(top(&[0.1, 0.9], 0).is_empty());
}

#[test]
fn chance_is_k_over_n_and_at_most_one() {
    let chance = Recall::chance(1400);
    assert!((chance.r10 - 10.0 / 1400.0).abs() < 1e-15);
    assert_eq!(Recall::chance(3).r5, 1.0);
    assert_eq!(Recall::of(&[]).r10, 0.0);
}
