//! Whether a new version of a pool takes something away, so that no proxy may send requests there for a moment longer
//! than it takes to tell it.

use super::Contents;
use crate::compile::BackendSetContent;
use weir_proto::push::BackendState;

/// Whether a backend is gone, has another address, or is not ready any more. One walk over each set that changed.
pub(super) fn takes_away(before: &Contents, after: &Contents) -> bool {
    before.sets.iter().any(|(name, old)| match after.sets.get(name) {
        Some(new) => old.digest != new.digest && loses(old, new),
        None => !old.backends.is_empty(),
    })
}

/// Both are sorted by id.
fn loses(old: &BackendSetContent, new: &BackendSetContent) -> bool {
    let mut rest = new.backends.iter();
    old.backends.iter().any(|old| {
        let is_ready = |state: i32| state != i32::from(BackendState::Draining);
        match rest.find(|new| new.id >= old.id) {
            Some(new) if new.id == old.id => {
                new.address != old.address || (is_ready(old.state) && !is_ready(new.state))
            }
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use weir_proto::push::Backend;

    fn contents(sets: &[(&str, &[Backend])]) -> Contents {
        let set = |(name, members): &(&str, &[Backend])| {
            ((*name).to_owned(), Arc::new(BackendSetContent::new(members.to_vec())))
        };
        Contents { sets: sets.iter().map(set).collect::<BTreeMap<_, _>>(), ..Contents::default() }
    }

    fn backend(id: &str) -> Backend {
        let state = BackendState::Ready.into();
        Backend { id: id.into(), address: "10.0.0.1:80".into(), weight: 1, state, ..Backend::default() }
    }

    #[test]
    fn only_what_takes_requests_away_from_a_backend_counts() {
        let [a, b, c] = ["a", "b", "c"].map(backend);
        let heavy = Backend { weight: 7, ..b.clone() };
        let moved = Backend { address: "10.0.0.2:80".into(), ..b.clone() };
        let draining = Backend { state: BackendState::Draining.into(), ..b.clone() };
        let before = [a.clone(), b.clone()];
        let cases: [(&str, &[Backend], bool); 8] = [
            ("the same", &[a.clone(), b.clone()], false),
            ("one more behind", &[a.clone(), b.clone(), c.clone()], false),
            ("another weight", &[a.clone(), heavy], false),
            ("the first is gone", std::slice::from_ref(&b), true),
            ("the last is gone", std::slice::from_ref(&a), true),
            ("another in its place", &[a.clone(), c.clone()], true),
            ("another address", &[a.clone(), moved], true),
            ("draining", &[a.clone(), draining.clone()], true),
        ];
        for (what, after, expected) in cases {
            let other = ("other", std::slice::from_ref(&c));
            let (before, after) = (contents(&[("s", &before), other]), contents(&[("s", after), other]));
            assert_eq!(takes_away(&before, &after), expected, "{what}");
        }
        let ready_again = takes_away(&contents(&[("s", &[draining])]), &contents(&[("s", &[b])]));
        assert!(!ready_again, "it may take more and not less");
        assert!(takes_away(&contents(&[("s", std::slice::from_ref(&a))]), &contents(&[])), "a whole set");
        assert!(!takes_away(&contents(&[("s", &[])]), &contents(&[])), "an empty set");
    }
}
