//! A request that can be sent once more if its server has not begun with it: its head is kept, and
//! its body comes back if nothing was taken of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use hyper::Request;
use hyper::http::request::Parts;

/// Where a body is put that nothing was taken of.
type Returned<B> = Arc<Mutex<Option<B>>>;

/// A body that comes back if it is dropped untouched.
pub struct Repeatable<B> {
    /// `None` once it is dropped.
    body: Option<B>,
    is_touched: bool,
    /// `None` if nobody would take it back.
    returned: Option<Returned<B>>,
}

/// What is kept of a request while it is sent.
pub(super) struct Original<B> {
    head: Parts,
    returned: Returned<B>,
}

/// What can be sent again of `request`, whose body comes back from now on.
pub(super) fn keep<B>(request: &mut Request<Repeatable<B>>) -> Original<B> {
    let returned = Returned::default();
    request.body_mut().returned = Some(Arc::clone(&returned));
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = request.method().clone();
    head.uri = request.uri().clone();
    head.version = request.version();
    head.headers = request.headers().clone();
    head.extensions = request.extensions().clone();
    Original { head, returned }
}

impl<B> Repeatable<B> {
    /// A body that nobody would take back.
    pub fn once(body: B) -> Self {
        Self {
            body: Some(body),
            is_touched: false,
            returned: None,
        }
    }
}

impl<B> Original<B> {
    /// The request, if nothing was taken of its body.
    pub(super) fn take_back(self) -> Option<Request<B>> {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        let body = returned.take()?;
        Some(Request::from_parts(self.head, body))
    }
}

impl<B> Drop for Repeatable<B> {
    fn drop(&mut self) {
        if let Some(returned) = self.returned.as_ref().filter(|_| !self.is_touched) {
            let mut returned = returned.lock().unwrap_or_else(PoisonError::into_inner);
            *returned = self.body.take();
        }
    }
}

impl<B: Body + Unpin> Body for Repeatable<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.is_touched = true;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
