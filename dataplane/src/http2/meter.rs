//! What a client of HTTP/2 does besides asking: resets and frames that carry nothing of a message.
//!
//! h2 bounds what such frames take in memory, and not how many come. Here the frames of both directions are counted by their
//! headers, as the bytes pass: streams that end by a reset of either side (rapid reset, CVE-2023-44487, and what makes the
//! server reset them itself, CVE-2025-8671), and SETTINGS, PING, PRIORITY, WINDOW_UPDATE, CONTINUATION, empty DATA and
//! frames of unknown kinds. Both have an allowance for each second and [`BURST_S`] seconds of it at once; frames that we
//! send to a client earn it frames of its own, for it has to acknowledge and to open windows.

use crate::snapshot::ListenerLimits;
use crate::timer::Timers;
use std::rc::Rc;

/// Seconds of an allowance that may come at once.
const BURST_S: u64 = 5;

/// Frames without a message's part that each frame of a message that we send allows a client.
const EARNED_BY_FRAME: u64 = 4;

const TICKS_PER_S: u64 = 10;

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    timers: Rc<Timers>,
    incoming: Frames,
    outgoing: Frames,
    resets: Allowance,
    control: Allowance,
    excess: Option<Excess>,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Resets,
    Control,
}

impl Meter {
    /// For a connection whose preface is still to come.
    pub(super) fn new(timers: Rc<Timers>, limits: &ListenerLimits) -> Self {
        let now = timers.now();
        Self {
            timers,
            incoming: Frames::after(PREFACE_BYTES),
            outgoing: Frames::after(0),
            resets: Allowance::new(limits.resets_per_second_max, now),
            control: Allowance::new(limits.control_frames_per_second_max, now),
            excess: None,
        }
    }

    /// Set once, by the frame that was one too many.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// These bytes came.
    pub(super) fn came(&mut self, bytes: &[u8]) {
        let now = self.timers.now();
        let Self { incoming, resets, control, excess, .. } = self;
        incoming.read(bytes, |frame| match frame.kind() {
            Kind::Message => {}
            Kind::Reset => note(excess, Excess::Resets, resets.take(now)),
            Kind::Control => note(excess, Excess::Control, control.take(now)),
        });
    }

    /// These bytes were sent.
    pub(super) fn went(&mut self, bytes: &[u8]) {
        let now = self.timers.now();
        let Self { outgoing, resets, control, excess, .. } = self;
        outgoing.read(bytes, |frame| match frame.kind() {
            Kind::Message => control.earn(EARNED_BY_FRAME),
            Kind::Reset => note(excess, Excess::Resets, resets.take(now)),
            Kind::Control => {}
        });
    }
}

fn note(excess: &mut Option<Excess>, what: Excess, was_there: bool) {
    if !was_there {
        excess.get_or_insert(what);
    }
}

/// What may still come: refilled by time up to its burst.
#[derive(Debug)]
struct Allowance {
    per_second: u64,
    /// In parts of which a frame takes [`TICKS_PER_S`], so that each tick gives a whole number.
    left: u64,
    at: u64,
}

impl Allowance {
    fn new(per_second: u32, now: u64) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, left: per_second * BURST_S * TICKS_PER_S, at: now }
    }

    fn full(&self) -> u64 {
        self.per_second * BURST_S * TICKS_PER_S
    }

    fn take(&mut self, now: u64) -> bool {
        let ticks = now.saturating_sub(self.at);
        self.at = now;
        self.left = self.left.saturating_add(ticks.saturating_mul(self.per_second)).min(self.full());
        let left = self.left.checked_sub(TICKS_PER_S);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    fn earn(&mut self, frames: u64) {
        self.left = (self.left + frames * TICKS_PER_S).min(self.full());
    }
}

/// How a connection begins, before its first frame (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

/// Finds the headers of frames in bytes that come in any pieces (RFC 9113, section 4.1).
#[derive(Debug)]
struct Frames {
    /// Bytes until the next header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    held: usize,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    length: usize,
    kind: u8,
    flags: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is a part of a message, or opens or ends the connection.
    Message,
    Reset,
    Control,
}

impl Header {
    fn kind(self) -> Kind {
        const END_STREAM: u8 = 1;
        match self.kind {
            // DATA; without any and without an end it says nothing.
            0 if self.length == 0 && self.flags & END_STREAM == 0 => Kind::Control,
            // HEADERS and GOAWAY.
            0 | 1 | 7 => Kind::Message,
            3 => Kind::Reset,
            _ => Kind::Control,
        }
    }
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self { skip, header: [0; HEADER_BYTES], held: 0 }
    }

    fn read(&mut self, mut bytes: &[u8], mut see: impl FnMut(Header)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (HEADER_BYTES - self.held).min(bytes.len());
            self.header[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
            self.held += taken;
            bytes = &bytes[taken..];
            if self.held == HEADER_BYTES {
                self.held = 0;
                let [a, b, c, kind, flags, ..] = self.header;
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.skip = length;
                see(Header { length, kind, flags });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::TICK;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn meter(limits: &ListenerLimits) -> (Meter, Rc<Timers>) {
        let timers = Rc::<Timers>::default();
        let mut meter = Meter::new(Rc::clone(&timers), limits);
        meter.came(PREFACE);
        (meter, timers)
    }

    #[test]
    fn a_second_has_as_many_ticks_as_are_counted() {
        assert_eq!(TICK * u32::try_from(TICKS_PER_S).expect("few"), std::time::Duration::from_secs(1));
    }

    #[test]
    fn resets_of_either_side_are_taken_up_to_the_burst_and_one_more_is_not() {
        let limits = ListenerLimits { resets_per_second_max: 2, ..ListenerLimits::default() };
        let (mut meter, timers) = meter(&limits);
        let reset = frame(3, 0, &[0, 0, 0, 8]);
        for n in 0..10 {
            if n % 2 == 0 { meter.came(&reset) } else { meter.went(&reset) }
        }
        assert_eq!(meter.excess(), None, "at the limit");
        (0..TICKS_PER_S).for_each(|_| timers.tick());
        meter.came(&reset);
        meter.came(&reset);
        assert_eq!(meter.excess(), None, "a second gives two more");
        meter.went(&reset);
        assert_eq!(meter.excess(), Some(Excess::Resets), "one past it");
    }

    #[test]
    fn frames_that_carry_nothing_are_counted_in_whatever_pieces_they_come() {
        let limits = ListenerLimits { control_frames_per_second_max: 2, ..ListenerLimits::default() };
        let nothing = [
            frame(4, 0, &[]),
            frame(6, 0, &[0; 8]),
            frame(8, 0, &[0, 0, 0, 1]),
            frame(2, 0, &[0; 5]),
            frame(9, 0, b"x"),
            frame(0, 0, b""),
            frame(77, 0, b"unknown"),
            frame(6, 1, &[0; 8]),
            frame(4, 1, &[]),
            frame(8, 0, &[0, 0, 0, 1]),
        ];
        let something = [frame(1, 4, b"head"), frame(0, 0, b"data"), frame(0, 1, b""), frame(7, 0, &[0; 8])];
        let bytes = [nothing.concat(), something.concat(), something.concat()].concat();
        for step in [1, 3, 9, 10, bytes.len()] {
            let (mut meter, _) = meter(&limits);
            bytes.chunks(step).for_each(|piece| meter.came(piece));
            assert_eq!(meter.excess(), None, "at the limit, in pieces of {step}");
            meter.came(&frame(6, 0, &[0; 8]));
            assert_eq!(meter.excess(), Some(Excess::Control), "one past it, in pieces of {step}");
        }
    }

    #[test]
    fn what_we_send_of_messages_earns_a_client_its_acknowledgements() {
        let limits = ListenerLimits { control_frames_per_second_max: 1, ..ListenerLimits::default() };
        let (mut meter, _) = meter(&limits);
        for _ in 0..1_000 {
            meter.went(&frame(0, 0, b"data"));
            (0..EARNED_BY_FRAME).for_each(|_| meter.came(&frame(8, 0, &[0, 0, 0, 1])));
        }
        assert_eq!(meter.excess(), None);
    }
}
