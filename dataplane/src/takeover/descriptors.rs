//! Descriptors over a Unix socket (`SCM_RIGHTS`), a few with each byte.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors with one byte. Linux takes 253.
const BATCH: usize = 64;

const SPACE: usize = rustix::cmsg_space!(ScmRights(BATCH));

/// Sends them all.
pub(super) async fn send(stream: &UnixStream, descriptors: &[OwnedFd]) -> io::Result<()> {
    for batch in descriptors.chunks(BATCH) {
        let batch: Vec<BorrowedFd<'_>> = batch.iter().map(OwnedFd::as_fd).collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); SPACE];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fits = control.push(SendAncillaryMessage::ScmRights(&batch));
            debug_assert!(fits, "the space is that of a batch");
            Ok(sendmsg(stream, &[IoSlice::new(b"F")], &mut control, SendFlags::NOSIGNAL)?)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

/// Receives exactly so many.
pub(super) async fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    while descriptors.len() < count {
        let receive = || {
            let (mut space, mut byte) = ([MaybeUninit::uninit(); SPACE], [0]);
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let slices = &mut [IoSliceMut::new(&mut byte)];
            let read = recvmsg(stream, slices, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
            let mut came = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(of) = message {
                    came.extend(of);
                }
            }
            Ok((read, came))
        };
        let (read, came) = stream.async_io(Interest::READABLE, receive).await?;
        // A byte without any is no batch of ours; nor is one with more than were announced.
        if read == 0 || came.is_empty() || descriptors.len() + came.len() > count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        descriptors.extend(came);
    }
    Ok(descriptors)
}
