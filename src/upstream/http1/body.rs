//! The body of an answer, as it comes, and the connection that it comes over.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::chunked::{Chunked, Piece};
use super::head::Framing;
use super::{Connection, HEAD_READ, Switched};

/// So much is read at a time at most.
const MOST_READ: usize = 64 << 10;

/// What is still to come.
#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunks(Chunked),
    /// Whatever comes until the connection ends.
    All,
}

/// The body of an answer.
pub(in super::super) struct Body {
    /// `None` when it has served another time.
    connection: Option<Box<Connection>>,
    rest: Rest,
    /// Whether the connection can serve again when the body has ended.
    may_stay: bool,
    /// How much is read next, if nothing says how much is to come.
    stride: usize,
}

impl Body {
    pub(super) fn new(connection: Box<Connection>, framing: Framing, may_stay: bool) -> Self {
        let rest = match framing {
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunks(Chunked::default()),
            Framing::Close => Rest::All,
        };
        Self {
            connection: Some(connection),
            rest,
            may_stay,
            stride: HEAD_READ,
        }
    }

    /// Whether nothing is to come any more, and that is known without waiting.
    pub(in super::super) fn is_over(&self) -> bool {
        self.rest.is_over()
    }

    pub(in super::super) fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Rest::Length(left) => SizeHint::with_exact(*left),
            Rest::Chunks(chunks) if chunks.is_over() => SizeHint::with_exact(0),
            Rest::Chunks(_) | Rest::All => SizeHint::default(),
        }
    }

    /// The connection, when the body has ended and another request can be sent over it.
    pub(in super::super) fn release(&mut self) -> Option<Box<Connection>> {
        if !self.may_stay || !self.is_over() {
            return None;
        }
        // What has come unasked could be taken for the next answer.
        let mut connection = self.connection.take().filter(|it| it.is_whole())?;
        if self.stride > HEAD_READ {
            connection.input = BytesMut::new();
        }
        Some(connection)
    }

    /// The connection, after an answer that switches it to another protocol (RFC 9110 §7.8).
    pub(in super::super) fn switch(self) -> Option<Switched> {
        self.connection?.switch()
    }

    pub(in super::super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            match self.rest.take(&mut connection.input) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.rest.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
            }
            let most = match self.rest {
                Rest::Length(left) => usize::try_from(left).map_or(MOST_READ, |l| l.min(MOST_READ)),
                Rest::Chunks(_) | Rest::All => self.stride,
            };
            match ready!(connection.poll_fill(cx, most)) {
                Ok(0) if matches!(self.rest, Rest::All) => {
                    self.connection = None;
                    return Poll::Ready(None);
                }
                Ok(0) => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Some(Err(self.fail(error))));
                }
                Ok(length) if length >= self.stride => {
                    self.stride = (2 * self.stride).min(MOST_READ);
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
            }
        }
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.connection = None;
        error
    }
}

impl Rest {
    fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_over(),
            Self::All => false,
        }
    }

    /// What has come of it; `None` if nothing.
    fn take(&mut self, input: &mut BytesMut) -> io::Result<Option<Frame<Bytes>>> {
        match self {
            Self::Length(0) => Ok(None),
            Self::Length(_) | Self::All if input.is_empty() => Ok(None),
            Self::Length(left) => {
                let length =
                    usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= length as u64;
                Ok(Some(Frame::data(input.split_to(length).freeze())))
            }
            Self::Chunks(chunks) => Ok(chunks.take(input)?.map(|piece| match piece {
                Piece::Data(data) => Frame::data(data),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            })),
            Self::All => Ok(Some(Frame::data(input.split().freeze()))),
        }
    }
}
