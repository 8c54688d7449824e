//! A request's body that can be sent a second time, as long as it is small.

use crate::course::Course;
use crate::failure::Failure;
use crate::message::{BodyLength, Frame, RequestBody};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use std::cell::Cell;

/// Most bytes of a request's body that are kept for another attempt. Past it the request cannot be sent again.
pub(crate) const REPLAY_BYTES_MAX: usize = 64 << 10;

/// A body that keeps what was read of it.
#[derive(Debug)]
pub(crate) struct Replay<'a, B> {
    body: B,
    course: &'a Course<'a>,
    /// Whether it can be sent again; false for ever once too much was read.
    is_kept: &'a Cell<bool>,
    kept: Kept,
    /// Of the bytes that are kept: those from here on are to be given again.
    position: usize,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: BytesMut,
    trailers: Option<HeaderMap>,
    /// The end was seen.
    is_whole: bool,
    /// The trailers were given in this attempt.
    is_trailed: bool,
}

impl<'a, B: RequestBody> Replay<'a, B> {
    /// What the client sends sets the clock of `course`; what is given again does not. `is_kept` says from then on whether
    /// the body can be sent again.
    pub(crate) fn new(body: B, course: &'a Course<'a>, is_kept: &'a Cell<bool>) -> Self {
        is_kept.set(true);
        Self { body, course, is_kept, kept: Kept::default(), position: 0 }
    }

    /// Begins again from the first byte; only while it can be sent again.
    pub(crate) fn rewind(&mut self) {
        self.position = 0;
        self.kept.is_trailed = false;
    }

    /// Reads a body to its end that is known to be no longer than [`REPLAY_BYTES_MAX`].
    pub(crate) async fn read_ahead(&mut self) -> Result<(), Failure> {
        while self.next().await?.is_some() {}
        self.rewind();
        Ok(())
    }

    /// All that there is, for an attempt beside this one; `None` before the end was read.
    pub(crate) fn copy(&self) -> Option<Copy> {
        if !self.is_kept.get() || !self.kept.is_whole {
            return None;
        }
        let data = Some(Bytes::copy_from_slice(&self.kept.bytes)).filter(|data| !data.is_empty());
        Some(Copy { data, trailers: self.kept.trailers.clone() })
    }
}

impl Kept {
    /// `false` when it is too much.
    fn keep(&mut self, frame: Option<&Frame>) -> bool {
        match frame {
            Some(Frame::Data(data)) if self.bytes.len() + data.len() > REPLAY_BYTES_MAX => return false,
            Some(Frame::Data(data)) => self.bytes.extend_from_slice(data),
            Some(Frame::Trailers(fields)) => {
                self.trailers = Some(fields.clone());
                self.is_trailed = true;
            }
            None => self.is_whole = true,
        }
        true
    }

    /// What was read before and not yet given in this attempt; `None` where reading goes on.
    fn again(&mut self, position: &mut usize) -> Option<Option<Frame>> {
        if *position < self.bytes.len() {
            let data = Bytes::copy_from_slice(&self.bytes[*position..]);
            *position = self.bytes.len();
            return Some(Some(Frame::Data(data)));
        }
        if !self.is_trailed
            && let Some(fields) = &self.trailers
        {
            self.is_trailed = true;
            return Some(Some(Frame::Trailers(fields.clone())));
        }
        self.is_whole.then_some(None)
    }
}

impl<B: RequestBody> RequestBody for Replay<'_, B> {
    async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        if self.is_kept.get()
            && let Some(again) = self.kept.again(&mut self.position)
        {
            return Ok(again);
        }
        let next = self.body.next().await?;
        self.course.moved();
        if self.is_kept.get() {
            if self.kept.keep(next.as_ref()) {
                self.position = self.kept.bytes.len();
            } else {
                self.is_kept.set(false);
                self.kept = Kept::default();
            }
        }
        Ok(next)
    }

    fn has_ended(&self) -> bool {
        self.body.has_ended()
    }
}

/// A whole body that was read before.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Copy {
    /// What is said of its length, where this was said of the body's that it is a copy of.
    pub(crate) fn length(&self, said: BodyLength) -> BodyLength {
        match (said, &self.data, &self.trailers) {
            (BodyLength::Unknown, None, None) => BodyLength::Known(0),
            (BodyLength::Unknown, Some(data), None) => BodyLength::Known(data.len() as u64),
            (said, ..) => said,
        }
    }
}

impl RequestBody for Copy {
    async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let data = self.data.take().map(Frame::Data);
        Ok(data.or_else(|| self.trailers.take().map(Frame::Trailers)))
    }

    fn has_ended(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::Timers;
    use http::HeaderValue;
    use lb_core::route::Timeouts;
    use std::collections::VecDeque;
    use std::rc::Rc;

    /// Frames that come once.
    struct Once(VecDeque<Frame>);

    impl RequestBody for Once {
        async fn next(&mut self) -> Result<Option<Frame>, Failure> {
            Ok(self.0.pop_front())
        }

        fn has_ended(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn once(pieces: &[usize], is_trailed: bool) -> Once {
        let data = |size: &usize| Frame::Data(Bytes::from(vec![b'x'; *size]));
        let mut frames: VecDeque<_> = pieces.iter().map(data).collect();
        if is_trailed {
            let fields = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("t"))]);
            frames.push_back(Frame::Trailers(fields));
        }
        Once(frames)
    }

    /// Bytes of data, and whether there were trailers.
    async fn read(body: &mut impl RequestBody) -> (usize, bool) {
        let (mut bytes, mut trailed) = (0, false);
        while let Some(frame) = body.next().await.expect("no failure") {
            match frame {
                Frame::Data(data) => bytes += data.len(),
                Frame::Trailers(_) => trailed = true,
            }
        }
        (bytes, trailed)
    }

    async fn with(body: Once, test: impl AsyncFnOnce(&mut Replay<'_, Once>, &Cell<bool>)) {
        let deadline = Rc::new(Timers::default()).deadline();
        let (timeouts, is_kept) = (Timeouts::default(), Cell::new(false));
        let course = Course::new(&deadline, &timeouts, None);
        test(&mut Replay::new(body, &course, &is_kept), &is_kept).await;
    }

    #[tokio::test]
    async fn a_body_is_given_again_from_its_first_byte_trailers_included() {
        with(once(&[10, 5000, 1], true), async |body, is_kept| {
            assert!(body.next().await.is_ok_and(|frame| frame.is_some()));
            for _ in 0..3 {
                body.rewind();
                assert_eq!(read(body).await, (5011, true));
            }
            assert!(is_kept.get());
            assert_eq!(read(&mut body.copy().expect("whole")).await, (5011, true));
            body.rewind();
            assert_eq!(read(body).await, (5011, true), "a copy takes nothing away");
        })
        .await;
    }

    #[tokio::test]
    async fn the_limit_is_kept_and_one_byte_past_it_is_not() {
        with(once(&[REPLAY_BYTES_MAX - 1, 1], false), async |body, is_kept| {
            assert_eq!((read(body).await.0, is_kept.get()), (REPLAY_BYTES_MAX, true));
        })
        .await;
        with(once(&[REPLAY_BYTES_MAX, 1], false), async |body, is_kept| {
            assert_eq!((read(body).await.0, is_kept.get()), (REPLAY_BYTES_MAX + 1, false), "it is passed on");
            assert!(body.copy().is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn a_body_can_be_read_before_it_is_sent() {
        with(once(&[7, 8], true), async |body, _| {
            assert!(body.copy().is_none(), "its end is not known");
            assert_eq!(body.read_ahead().await, Ok(()));
            assert_eq!(read(body).await, (15, true));
        })
        .await;
    }
}
