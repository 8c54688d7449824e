//! What is inside of a sealed cookie, as bytes.
//!
//! ```text
//! form (1) | pool (4) | seconds since 1970 (4) | set (4), backend (8) | set, backend | ...
//! ```
//!
//! All big-endian. Fixed sizes, so that every value has one form and every form one value.

use super::Choice;
use std::time::Duration;

/// Choices that one cookie holds.
pub const CHOICES_MAX: usize = 8;

/// Largest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 128;

/// The first byte. Another form takes another number, and this one is then read for as long as cookies live.
const FORM: u8 = 1;

const HEAD_BYTES: usize = 9;
const CHOICE_BYTES: usize = 12;

const _: () = assert!(HEAD_BYTES + CHOICES_MAX * CHOICE_BYTES <= TOKEN_BYTES_MAX);

/// What is inside of a sealed cookie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Token {
    /// Of the pool: [`super::pool_tag`].
    pub pool: u32,
    /// Since 1970, to the second; until the year 2106.
    pub issued: Duration,
    /// Newest first, each set once, at most [`CHOICES_MAX`].
    pub choices: Vec<Choice>,
}

/// Why bytes are no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of this form.
    #[error("the token is malformed")]
    Malformed,
}

impl Token {
    /// Reads what [`Self::to_bytes`] wrote, and nothing else: no other form, no bytes behind it, 1 to [`CHOICES_MAX`]
    /// choices, no set twice.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(bytes: &[u8]) -> Result<Self, TokenError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(TokenError::Malformed)?;
        let [FORM, p0, p1, p2, p3, i0, i1, i2, i3] = *head else { return Err(TokenError::Malformed) };
        let (chunks, behind) = rest.as_chunks::<CHOICE_BYTES>();
        if !behind.is_empty() || chunks.is_empty() || chunks.len() > CHOICES_MAX {
            return Err(TokenError::Malformed);
        }
        let mut choices = Vec::with_capacity(chunks.len());
        for [s0, s1, s2, s3, backend @ ..] in chunks {
            let set = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
            if choices.iter().any(|choice: &Choice| choice.set == set) {
                return Err(TokenError::Malformed);
            }
            choices.push(Choice { set, backend: u64::from_be_bytes(*backend) });
        }
        let issued = u32::from_be_bytes([i0, i1, i2, i3]);
        Ok(Self {
            pool: u32::from_be_bytes([p0, p1, p2, p3]),
            issued: Duration::from_secs(issued.into()),
            choices,
        })
    }

    /// At most [`TOKEN_BYTES_MAX`]. Choices past [`CHOICES_MAX`] are left out.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES_MAX);
        bytes.push(FORM);
        bytes.extend_from_slice(&self.pool.to_be_bytes());
        let issued = u32::try_from(self.issued.as_secs()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&issued.to_be_bytes());
        for choice in self.choices.iter().take(CHOICES_MAX) {
            bytes.extend_from_slice(&choice.set.to_be_bytes());
            bytes.extend_from_slice(&choice.backend.to_be_bytes());
        }
        bytes
    }

    /// What was chosen in this set; `None` where nothing was.
    #[must_use]
    pub fn chosen(&self, set: u32) -> Option<Choice> {
        self.choices.iter().copied().find(|choice| choice.set == set)
    }

    /// With this choice as the newest, in place of one of the same set; the oldest goes where there is no room.
    #[must_use]
    pub fn with(mut self, choice: Choice) -> Self {
        self.choices.retain(|other| other.set != choice.set);
        self.choices.truncate(CHOICES_MAX - 1);
        self.choices.insert(0, choice);
        self
    }

    /// Whether it is worth nothing any more, or not yet: it is older than `lifetime`, or further ahead than a clock that
    /// is `skew` fast would put it. `now` is since 1970.
    #[must_use]
    pub fn is_expired(&self, now: Duration, lifetime: Duration, skew: Duration) -> bool {
        now.saturating_sub(self.issued) > lifetime || self.issued.saturating_sub(now) > skew
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(sets: impl IntoIterator<Item = u32>) -> Token {
        let choices = sets.into_iter().map(|set| Choice { set, backend: u64::from(set) << 40 }).collect();
        Token { pool: 7, issued: Duration::from_secs(1_800_000_000), choices }
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_its_form_never_changes() {
        let written = token([0x0102_0304]).to_bytes();
        let form = [1, 0, 0, 0, 7, 0x6b, 0x49, 0xd2, 0, 1, 2, 3, 4, 2, 3, 4, 0, 0, 0, 0, 0];
        assert_eq!(written[..13], form[..13], "cookies in browsers are of this form");
        assert_eq!(Token::read(&written), Ok(token([0x0102_0304])));
    }

    #[test]
    fn bytes_behind_sets_twice_and_other_forms_are_refused() {
        let good = token([1, 2]).to_bytes();
        let behind = [&good[..], &[0]].concat();
        let twice = [&good[..], &good[HEAD_BYTES..HEAD_BYTES + CHOICE_BYTES]].concat();
        let other = [&[2], &good[1..]].concat();
        let empty = &good[..HEAD_BYTES];
        for bad in [&behind[..], &twice, &other, empty, &[]] {
            assert_eq!(Token::read(bad), Err(TokenError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_token_holds_eight_choices_and_not_one_more() {
        let full = token(0..8);
        assert_eq!(Token::read(&full.to_bytes()), Ok(full.clone()));
        assert!(full.to_bytes().len() <= TOKEN_BYTES_MAX);
        let past = [full.to_bytes(), vec![9; CHOICE_BYTES]].concat();
        assert_eq!(Token::read(&past), Err(TokenError::Malformed));
        assert_eq!(Token::read(&token(0..9).to_bytes()), Ok(full));
    }

    #[test]
    fn a_new_choice_goes_first_and_the_oldest_drops_out() {
        let sets = |token: &Token| token.choices.iter().map(|choice| choice.set).collect::<Vec<_>>();
        let new = Choice { set: 3, backend: 99 };
        let moved = token([1, 2, 3]).with(new);
        assert_eq!((sets(&moved), moved.chosen(3)), (vec![3, 1, 2], Some(new)));
        let full = token(0..8).with(Choice { set: 8, backend: 1 });
        assert_eq!(sets(&full), [8, 0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(full.chosen(7), None);
    }

    #[test]
    fn a_token_ends_after_its_lifetime_and_does_not_come_from_the_future() {
        let (token, hour, skew) = (token([1]), Duration::from_secs(3600), Duration::from_secs(60));
        let second = Duration::from_secs(1);
        assert!(!token.is_expired(token.issued + hour, hour, skew));
        assert!(token.is_expired(token.issued + hour + second, hour, skew));
        assert!(!token.is_expired(token.issued - skew, hour, skew));
        assert!(token.is_expired(token.issued - skew - second, hour, skew));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_token_of_the_same_bytes_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            if let Ok(token) = Token::read(&bytes) {
                prop_assert_eq!(token.to_bytes(), bytes);
            }
        }

        #[test]
        fn any_choices_under_the_right_head_round_trip(
            pool: u32, issued: u32, body in proptest::collection::vec(any::<u8>(), 0..140),
        ) {
            let bytes = [&[FORM][..], &pool.to_be_bytes(), &issued.to_be_bytes(), &body].concat();
            match Token::read(&bytes) {
                Ok(token) => prop_assert_eq!(token.to_bytes(), bytes),
                Err(TokenError::Malformed) => {
                    prop_assert!(body.len() % CHOICE_BYTES != 0 || body.is_empty() || body.len() > 96);
                }
            }
        }
    }
}
