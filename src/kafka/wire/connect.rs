//! How a stream to a broker is opened, and which addresses are tried.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a broker.
pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// Opens byte streams to brokers. Replace it to route through a proxy, a tunnel or a simulated network.
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream to `host`, a name or an address without brackets. The client bounds it by its connect timeout
    /// and drops the future when that runs out.
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;
}
