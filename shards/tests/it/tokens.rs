//! Token ids against transformers; the golden file is written by the script beside it.

use pixfleet_shards::Tokenizer;
use pixfleet_shards::tokens::END;

#[test]
fn ids_are_those_of_transformers_and_cut_as_it_cuts() {
    let clip = Tokenizer::open("clip").expect("built in");
    let mut seen = 0;
    for line in include_str!("../golden/clip_tokens.txt").lines() {
        let (text, ids) = line.split_once('\t').expect("two columns");
        let text: String = serde_json::from_str(text).expect("a JSON string");
        let ids: Vec<u32> = ids.split(' ').map(|id| id.parse().expect("a number")).collect();
        for most in [2, 77, 248, usize::MAX] {
            let tokens = clip.encode(&text, most).expect("a caption");
            let mut expected = ids.clone();
            if ids.len() > most {
                expected.truncate(most - 1);
                expected.push(END);
            }
            assert_eq!(tokens.ids, expected, "{text:?} at {most}");
            assert_eq!((tokens.length, tokens.cut), (ids.len(), ids.len() > most), "{text:?} at {most}");
        }
        seen += 1;
    }
    assert_eq!(seen, 1000);
}
