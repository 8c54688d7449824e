//! Where the frames of a WebSocket end (RFC 6455, section 5.2), so that a frame of ours can go between two of them.
//!
//! Only lengths are read. A control frame may stand between any two frames, also between those of one message
//! (section 5.4), so nothing else has to be known; what extensions do to payloads does not matter.

/// Bytes of a frame's head at most: two, eight of length, four of mask.
const HEAD_BYTES_MAX: usize = 14;

/// Close, 1001: "going away" (section 7.4.1), as a server says it.
pub(super) const CLOSE_TO_CLIENT: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// The same as a client says it: masked, with zeros, for what is masked is no secret and no proxy reads it here.
pub(super) const CLOSE_TO_BACKEND: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9];

/// How far the bytes of one direction are through their frames.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: u8,
    payload_left: u64,
    has_closed: bool,
}

impl Frames {
    /// Whether a frame may follow: one has ended, and it did not close the WebSocket.
    pub(super) fn is_between(&self) -> bool {
        self.head_bytes == 0 && self.payload_left == 0 && !self.has_closed
    }

    /// Whether a Close has gone through.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// These bytes have gone through. Costs a few instructions for each frame, whatever its size.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            if self.payload_left > 0 {
                let here = self.payload_left.min(bytes.len() as u64);
                self.payload_left -= here;
                bytes = &bytes[usize::try_from(here).expect("no more than there are bytes")..];
                continue;
            }
            let at = usize::from(self.head_bytes);
            self.head[at] = first;
            self.head_bytes += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.payload() {
                self.has_closed |= self.head[0] & 0x0F == 8;
                self.payload_left = payload;
                self.head_bytes = 0;
            }
        }
    }

    /// The frame's length, once its head is whole.
    fn payload(&self) -> Option<u64> {
        let head = &self.head[..usize::from(self.head_bytes)];
        let (&second, rest) = head.get(1..)?.split_first()?;
        let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
        let length_bytes = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < length_bytes + mask_bytes {
            return None;
        }
        if length_bytes == 0 {
            return Some(u64::from(second & 0x7F));
        }
        Some(rest[..length_bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, masked: bool, payload: usize) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload {
            0..=125 => bytes.push(bit | u8::try_from(payload).expect("small")),
            126..=0xFFFF => {
                bytes.push(bit | 126);
                bytes.extend(u16::try_from(payload).expect("two bytes").to_be_bytes());
            }
            _ => {
                bytes.push(bit | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend(if masked { &[1, 2, 3, 4][..] } else { &[] });
        bytes.resize(bytes.len() + payload, 0x88);
        bytes
    }

    #[test]
    fn a_frame_has_ended_after_its_last_byte_and_not_before_however_it_is_cut() {
        for masked in [false, true] {
            for payload in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000] {
                let bytes = frame(0x82, masked, payload);
                let steps = if payload > 200 { vec![1, 7, 4096] } else { vec![1, 2, 3, bytes.len()] };
                for step in steps {
                    let mut frames = Frames::default();
                    let mut left = bytes.len();
                    for piece in bytes.chunks(step) {
                        assert!(left == bytes.len() || !frames.is_between(), "{payload} bytes, {left} left");
                        frames.pass(piece);
                        left -= piece.len();
                    }
                    assert!(frames.is_between(), "{payload} bytes by {step}, masked: {masked}");
                }
            }
        }
    }

    #[test]
    fn several_frames_in_one_piece_are_told_apart() {
        let mut frames = Frames::default();
        frames.pass(&[frame(0x01, false, 300), frame(0x80, false, 5), frame(0x89, false, 0)].concat());
        assert!(frames.is_between());
        frames.pass(&[0x82, 3, 0, 0]);
        assert!(!frames.is_between());
    }

    #[test]
    fn nothing_may_follow_a_close_also_not_ours() {
        for close in [&CLOSE_TO_CLIENT[..], &CLOSE_TO_BACKEND] {
            let mut frames = Frames::default();
            frames.pass(close);
            assert!(!frames.is_between());
        }
    }

    #[test]
    fn the_greatest_length_there_is_does_no_harm() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
        frames.pass(&[0; 1000]);
        assert!(!frames.is_between());
    }
}
