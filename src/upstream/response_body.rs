//! The body of an answer, whatever it comes in, with its server's time and its place on a connection,
//! which it gives back when it has ended.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http1;
use super::multiplex::Place;
use super::pool::Pool;
use super::server::{Busy, Server};

/// The body of an answer. Dropped before its end, it ends what it comes over.
pub struct ResponseBody {
    content: Content,
    /// `None` when it has ended.
    busy: Option<Busy>,
    server: Arc<Server>,
}

/// Where a body comes from.
pub(super) enum Content {
    /// A connection of HTTP/1.1, which goes to this pool afterwards, or ends.
    Http1(http1::Body, Option<Arc<Pool>>),
    /// A stream of HTTP/2, with its place on a connection until it ends.
    Http2(Incoming, Option<Place>),
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseBody")
    }
}

impl ResponseBody {
    pub(super) fn new(content: Content, busy: Busy) -> Self {
        let mut body = Self {
            content,
            server: Arc::clone(busy.at()),
            busy: Some(busy),
        };
        body.settle();
        body
    }

    /// `host:port` of its server, as configured.
    #[must_use]
    pub fn server(&self) -> &str {
        self.server.name()
    }

    /// Gives back what is not needed any more, if nothing is still to come.
    fn settle(&mut self) {
        match &mut self.content {
            Content::Http1(body, pool) if body.is_over() => {
                if let (Some(pool), Some(busy)) = (pool.take(), &self.busy)
                    && let Some(connection) = body.release()
                {
                    pool.put(connection, busy.at());
                }
            }
            Content::Http2(incoming, place) if incoming.is_end_stream() => *place = None,
            Content::Http1(..) | Content::Http2(..) => return,
        }
        self.busy = None;
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = match &mut self.content {
            Content::Http1(body, _) => ready!(body.poll_frame(cx)),
            Content::Http2(incoming, place) => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                if frame.is_none() {
                    *place = None;
                }
                match frame {
                    // hyper takes a stream that its server resets without complaint for one that has
                    // ended, which END_STREAM alone says (RFC 9113 §8.1).
                    None if !incoming.is_end_stream() => {
                        Some(Err(io::ErrorKind::UnexpectedEof.into()))
                    }
                    frame => frame.map(|frame| frame.map_err(io::Error::other)),
                }
            }
        };
        self.settle();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Http1(body, _) => body.is_over(),
            Content::Http2(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Http1(body, _) => body.size_hint(),
            Content::Http2(incoming, _) => incoming.size_hint(),
        }
    }
}
