//! `get`: prints messages of a RabbitMQ queue; acknowledges what it printed.

use muslin::amqp::{Deliveries, Delivery, Queue};

use crate::args::Get;
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::message::Printed;
use crate::output::{Data, Written};

/// How many messages `--no-ack` looks at unless told.
const LOOK: u64 = 1000;
/// How many messages the broker sends ahead, and are acknowledged at once.
const LOT: u16 = 200;
/// At how many bytes the output is written.
const LOT_BYTES: usize = 64 << 10;

/// One message at a time until the queue is empty, or as they come.
enum Source {
    Now(Queue),
    Stream(Deliveries),
}

impl Source {
    /// The next message; `None` when there is none, or when the stream has ended.
    async fn next(&mut self) -> muslin::Result<Option<Delivery>> {
        match self {
            Self::Now(queue) => queue.get().await,
            Self::Stream(deliveries) => deliveries.next().await.transpose(),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(context: Context, args: Get) -> Outcome {
    let left = args.count.or(args.no_ack.then_some(LOOK));
    if left == Some(0) {
        return Ok(Ended::Done);
    }
    let Some(client) = context.amqp().await? else { return Ok(Ended::Interrupted) };
    let queue = client.queue(&args.queue).passive().declare().await.map_err(Failure::setup)?;
    let source = if args.exit || args.no_ack {
        Source::Now(queue)
    } else {
        let ahead = left.map_or(LOT, |n| u16::try_from(n).unwrap_or(LOT).min(LOT));
        Source::Stream(queue.consume().prefetch(ahead).start().await.map_err(Failure::setup)?)
    };
    let ended = print(&context, source, &args, left).await;
    let closed = client.close().await;
    match ended {
        Ok(ended) => closed.map(|()| ended).map_err(Into::into),
        Err(failure) => Err(failure),
    }
}

async fn print(context: &Context, mut source: Source, args: &Get, mut left: Option<u64>) -> Outcome {
    let mut data = Data::default();
    // Printed to the buffer; with `--no-ack`, held to the end, or the broker would hand them out again.
    let mut held: Vec<Delivery> = Vec::new();
    let mut unwritten = 0;
    let ended = loop {
        if left == Some(0) {
            break Ok(Ended::Done);
        }
        let full = data.len() >= LOT_BYTES || unwritten >= usize::from(LOT);
        // `Queue::get` is a question with an answer on its way: it must not be left half-way for a flush.
        let idle = matches!(source, Source::Stream(_)) && unwritten > 0;
        if full && !flush(&mut data, &mut held, &mut unwritten, args.no_ack)? {
            return Ok(Ended::Done);
        }
        let next = tokio::select! {
            biased;
            () = context.stop.wait() => break Ok(Ended::Interrupted),
            next = source.next() => next,
            () = std::future::ready(()), if idle => {
                if flush(&mut data, &mut held, &mut unwritten, args.no_ack)? { continue }
                return Ok(Ended::Done);
            }
        };
        match next {
            Ok(Some(delivery)) => {
                if context.console.json {
                    data.json(&Printed::new(&args.queue, &delivery))?;
                } else {
                    data.buffer().extend_from_slice(delivery.body());
                    data.buffer().push(b'\n');
                }
                held.push(delivery);
                unwritten += 1;
                left = left.map(|n| n - 1);
            }
            Ok(None) => break Ok(Ended::Done),
            Err(e) => break Err(e.into()),
        }
    };
    flush(&mut data, &mut held, &mut unwritten, args.no_ack)?;
    if args.no_ack && args.count.is_none() && left == Some(0) {
        context.console.note(&format!("stopped after {LOOK} messages; -c sets another number"));
    }
    // What is still held goes back to the queue.
    drop(held);
    if let Source::Stream(deliveries) = source {
        // Gives back what was sent ahead; the connection's end would do so too.
        let _ = deliveries.cancel().await;
    }
    ended
}

/// Writes and acknowledges; `false` when nobody reads any more.
fn flush(
    data: &mut Data,
    held: &mut Vec<Delivery>,
    unwritten: &mut usize,
    no_ack: bool,
) -> Result<bool, Failure> {
    if data.flush()? == Written::ReaderGone {
        return Ok(false);
    }
    *unwritten = 0;
    if !no_ack {
        held.drain(..).for_each(Delivery::ack);
    }
    Ok(true)
}
