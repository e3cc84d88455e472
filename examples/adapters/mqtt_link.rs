//! Packets over a byte stream: reading them whole, writing them within a time limit.
//! A peer that does not take its bytes in time is as good as gone.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use rmqtt_codec::error::DecodeError;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use crate::mqtt_codec::{Codec, Encoded, Incoming, Outgoing};

const WRITE_LIMIT: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_secs(1);

/// The connection is over, and nothing more can be said on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

pub(crate) struct Link<R, W> {
    packets: FramedRead<R, Codec>,
    writer: W,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Link<R, W> {
    pub(crate) fn new(reader: R, writer: W) -> Self {
        Self {
            packets: FramedRead::new(reader, Codec::default()),
            writer,
        }
    }

    /// The next packet; `None` at the end of the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Incoming, DecodeError>> {
        self.packets.next().await
    }

    /// Not cancel-safe: half a packet may be written.
    pub(crate) async fn send(&mut self, packet: Outgoing) -> Result<Encoded, Lost> {
        let mut bytes = BytesMut::new();
        let codec = self.packets.decoder_mut();
        let encoded = codec.write(packet, &mut bytes).map_err(|_| Lost)?;
        let written = timeout(WRITE_LIMIT, async {
            self.writer.write_all(&bytes).await?;
            self.writer.flush().await
        });
        written.await.map_err(|_| Lost)?.map_err(|_| Lost)?;
        Ok(encoded)
    }

    /// Closes our side, then reads on for a moment: closing over unread bytes would reset the
    /// connection, and could take the last answer with it.
    pub(crate) async fn close(mut self) {
        let _ = timeout(WRITE_LIMIT, self.writer.shutdown()).await;
        let mut reader = self.packets.into_inner();
        let _ = timeout(LINGER, copy(&mut reader, &mut sink())).await;
    }
}
