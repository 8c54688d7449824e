//! What our stages have to say in a response, whoever answers; and what the access log is told of it.

use crate::access_log::{Account, Reason};
use crate::failure::Failure;
use crate::filters::Editing;
use crate::message::{ResponseHead, ResponseSink};
use crate::rates::Telling;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// A response sink whose head is edited on its way: by the filters first, so that none of them takes away what limits and the
/// host say.
pub(crate) struct Edited<'a, S> {
    sink: &'a mut S,
    /// Where the request is logged.
    pub(super) account: Option<&'a Account>,
    /// Why there is an answer of ours that no [`Failure`] is behind.
    pub(super) reason: Option<Reason>,
    pub(super) editing: Editing,
    pub(super) telling: Telling,
}

impl<'a, S> Edited<'a, S> {
    pub(super) fn new(sink: &'a mut S, account: Option<&'a Account>) -> Self {
        Self { sink, account, reason: None, editing: Editing::default(), telling: Telling::default() }
    }
}

impl<S: ResponseSink> ResponseSink for Edited<'_, S> {
    async fn interim(&mut self, status: StatusCode, headers: HeaderMap) -> Result<(), Failure> {
        self.sink.interim(status, headers).await
    }

    async fn head(&mut self, mut head: ResponseHead) -> Result<(), Failure> {
        self.editing.edit(&mut head.headers);
        self.telling.tell(&mut head.headers);
        self.account.iter().for_each(|account| account.answered(&head));
        self.sink.head(head).await
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        self.account.iter().for_each(|account| account.went(data.len()));
        self.sink.data(data).await
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.sink.flush().await
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        if let (Some(account), Some(trailers)) = (self.account, &trailers) {
            account.trailed(trailers);
        }
        self.sink.end(trailers).await
    }

    fn close_after(&mut self) {
        self.sink.close_after();
    }

    async fn gone(&mut self) {
        self.sink.gone().await;
    }

    fn has_begun(&self) -> bool {
        self.sink.has_begun()
    }
}
