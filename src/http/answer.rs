//! An answer, the upstream's or the gateway's own, on its way to become the client's.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use hyper::header::CONTENT_LENGTH;
use hyper::http::response;
use hyper::{HeaderMap, Response, StatusCode};

use super::body::AnswerBody;
use super::exchange::Exchange;
use super::field_rules::Author;
use super::headers::{self, X_REQUEST_ID};
use crate::route::Route;
use crate::upstream::ResponseBody;

/// An answer before it is the client's.
pub(super) struct Answer {
    head: response::Parts,
    content: Content,
    route: Arc<Route>,
}

/// The body of an answer.
enum Content {
    Own(Bytes),
    Upstreams(ResponseBody),
    /// The upstream's, after which another protocol is spoken.
    Switch {
        server: String,
    },
}

impl Content {
    /// Whose it is, if not our own.
    fn server(&self) -> Option<&str> {
        match self {
            Self::Own(_) => None,
            Self::Upstreams(content) => Some(content.server()),
            Self::Switch { server } => Some(server),
        }
    }

    fn author(&self) -> Author {
        match self {
            Self::Own(_) => Author::Gateway,
            Self::Upstreams(_) | Self::Switch { .. } => Author::Upstream,
        }
    }
}

impl Answer {
    pub(super) fn of_upstream(response: Response<ResponseBody>, route: Arc<Route>) -> Self {
        let (head, content) = response.into_parts();
        Self {
            head,
            content: Content::Upstreams(content),
            route,
        }
    }

    pub(super) fn of_our_own(response: Response<Bytes>, route: Arc<Route>) -> Self {
        let (head, content) = response.into_parts();
        Self {
            head,
            content: Content::Own(content),
            route,
        }
    }

    /// The upstream's word that another protocol is spoken from here on.
    pub(super) fn switched(head: response::Parts, server: String, route: Arc<Route>) -> Self {
        Self {
            head,
            content: Content::Switch { server },
            route,
        }
    }

    /// Of our own, to the opening of a WebSocket.
    pub(super) fn opened(status: StatusCode, fields: HeaderMap, route: Arc<Route>) -> Self {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        Self::of_our_own(response, route)
    }

    pub(super) fn into_response(self, mut exchange: Box<Exchange>) -> Response<AnswerBody> {
        let Self {
            mut head,
            content,
            route,
        } = self;
        exchange.answered(head.status);
        exchange.served_by(content.server());
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            headers::remove_hop_by_hop(&mut head.headers);
        }
        exchange.finish(&mut head.headers, content.author());
        if head.status == StatusCode::NO_CONTENT {
            // RFC 9110 §8.6. In HTTP/2 a client would wait for what it announces.
            head.headers.remove(CONTENT_LENGTH);
        }
        head.headers
            .insert(X_REQUEST_ID, exchange.request_id().clone());
        // RFC 9110 §9.3.2, §15.3.5, §15.4.5.
        let bare = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        let is_bare = exchange.is_head() || bare.contains(&head.status);
        let body = match content {
            // Whatever a server of HTTP/2 sends all the same; dropped, it is told to stop.
            Content::Upstreams(content) if is_bare && !content.is_end_stream() => {
                drop(content);
                AnswerBody::own(Bytes::new(), exchange)
            }
            Content::Upstreams(content) => {
                AnswerBody::streamed(content, route.idle_timeout, exchange)
            }
            Content::Own(content) if exchange.is_head() && !content.is_empty() => {
                // In HTTP/2 the body would be sent, and the client would take that for an error.
                head.headers.insert(CONTENT_LENGTH, content.len().into());
                AnswerBody::own(Bytes::new(), exchange)
            }
            Content::Own(content) => AnswerBody::own(content, exchange),
            Content::Switch { .. } => AnswerBody::own(Bytes::new(), exchange),
        };
        Response::from_parts(head, body)
    }
}
