//! What hard negatives change, as the split says it.

use pixfleet_shards::row::Region;

/// The name of what each hard negative of `region` changes; empty where the split does not say.
pub(super) fn kinds(_region: &Region) -> Vec<&'static str> {
    Vec::new()
}
