//! The calls into librdkafka that the `rdkafka` crate has no safe way for. All unsafe code of the Kafka
//! source is here.
//!
//! ```text
//!   librdkafka's thread ──▶ queue of one partition ──0 → 1──▶ Waker
//!                              │ consume_batch_queue, never waiting
//!                              ▼
//!                           fetched: up to BATCH messages, looked at in place, destroyed one by one
//! ```

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_resp_err_t as Code;

use super::queue::{PartitionFault, PartitionMessages, QueueItem};
use super::status::StatusContext;
use crate::bridge::Waker;
use crate::codec::header::Header;
use crate::error::{Error, Result};
use crate::position::{Offset, TopicId};
use crate::source::Raw;
use crate::time::EventTime;

/// A consumer whose events go to a [`ClientStatus`](super::status::ClientStatus).
pub(super) type Consumer = BaseConsumer<StatusContext>;

/// How many messages are taken from librdkafka at once: enough to make the lock cheap, few enough to stay in
/// the cache.
const BATCH: usize = 1024;

/// The messages of one partition, apart from those of all others.
pub(super) struct PartitionQueue {
    /// Messages that were taken and not yet destroyed: those from `next` on. Each is owned by this queue.
    fetched: Vec<*mut sys::rd_kafka_message_t>,
    next: usize,
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// From `Box::into_raw`: librdkafka's threads call it.
    waker: NonNull<Waker>,
    /// Held so that the client outlives its queue and its messages.
    consumer: Arc<Consumer>,
    topic: CString,
    partition: i32,
}

/// Runs on a thread of librdkafka, under the queue's lock, when the queue goes from empty to not empty.
unsafe extern "C" fn wake(_client: *mut sys::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: `waker` is the `PartitionQueue`'s, which is freed only after the callback was taken off under
    // the same lock under which it is called. A panic must not unwind into C.
    let waker = unsafe { &*waker.cast::<Waker>() };
    let _panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
}

impl PartitionQueue {
    /// Parts the queue of `partition` from the consumer's own. To be made **before** the partition is
    /// assigned: a message that reached the consumer's queue would never be seen here.
    pub(super) fn new(consumer: &Arc<Consumer>, topic: &str, partition: u32, waker: Waker) -> Result<Self> {
        let refused = || Error::internal(format!("no queue for partition {partition} of topic `{topic}`"));
        let name = CString::new(topic).map_err(|_| refused().detail("the topic's name has a zero byte"))?;
        let number = i32::try_from(partition).map_err(|_| refused())?;
        // SAFETY: the client is alive, the name ends in zero. The queue that comes back is ours to destroy.
        let queue = unsafe {
            sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), number)
        };
        let queue = NonNull::new(queue).ok_or_else(refused)?;
        // SAFETY: `Box::into_raw` never gives null.
        let waker = unsafe { NonNull::new_unchecked(Box::into_raw(Box::new(waker))) };
        // SAFETY: the queue is alive; forwarding to null is how librdkafka is told to leave messages in it,
        // also when the partition is assigned later. `waker` outlives the callback: see `drop`.
        unsafe {
            sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(wake), waker.as_ptr().cast());
        }
        Ok(Self {
            fetched: Vec::with_capacity(BATCH),
            next: 0,
            queue,
            waker,
            consumer: consumer.clone(),
            topic: name,
            partition: number,
        })
    }
}

impl PartitionMessages for PartitionQueue {
    fn fetch(&mut self) -> bool {
        if self.next < self.fetched.len() {
            return false;
        }
        self.fetched.clear();
        self.next = 0;
        // SAFETY: there is room for BATCH pointers; librdkafka writes the first `count` of them, and they are
        // ours. Time-out 0: it never waits.
        let count = unsafe {
            let count =
                sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.fetched.as_mut_ptr(), BATCH);
            self.fetched.set_len(usize::try_from(count).unwrap_or(0));
            self.fetched.len()
        };
        count < BATCH
    }

    #[inline]
    fn head(&self) -> Option<QueueItem<'_>> {
        let message = *self.fetched.get(self.next)?;
        // SAFETY: messages from `next` on are alive, and stay so while `self` is borrowed.
        Some(unsafe { look(message) })
    }

    fn end(&self) -> Option<Offset> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client is alive, and the name ends in zero. This reads what the latest answer to a
        // fetch said; nothing is sent.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                self.topic.as_ptr(),
                self.partition,
                &raw mut low,
                &raw mut high,
            )
        };
        (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }

    fn headers(&self) -> Vec<Header> {
        match self.fetched.get(self.next) {
            // SAFETY: messages from `next` on are alive.
            Some(message) => unsafe { headers(*message) },
            None => Vec::new(),
        }
    }

    #[inline]
    fn pop(&mut self) {
        if let Some(&message) = self.fetched.get(self.next) {
            self.next += 1;
            // SAFETY: the message is ours, and `next` has passed it, so nothing sees it again.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}

impl Drop for PartitionQueue {
    /// Messages, then the callback, then the queue, then its waker; the consumer goes last, as a field.
    fn drop(&mut self) {
        while self.next < self.fetched.len() {
            self.pop();
        }
        // SAFETY: taking the callback off takes the lock that it runs under: when that returns, no thread is
        // in it and none will be, so the waker may be freed.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
            drop(Box::from_raw(self.waker.as_ptr()));
        }
    }
}

/// A message as it lies in librdkafka's buffer.
///
/// # Safety
/// `message` is alive for `'a`.
#[inline]
unsafe fn look<'a>(message: *const sys::rd_kafka_message_t) -> QueueItem<'a> {
    // SAFETY: the caller's. The code is read as a number: brokers may send ones that the enum lacks.
    unsafe {
        let code = (&raw const (*message).err).cast::<i32>().read();
        let offset = (*message).offset;
        if code != 0 {
            return if code == Code::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32 {
                QueueItem::End(offset)
            } else {
                QueueItem::Fault(PartitionFault {
                    code,
                    offset,
                    text: text(sys::rd_kafka_message_errstr(message)),
                })
            };
        }
        let timestamp = match sys::rd_kafka_message_timestamp(message, ptr::null_mut()) {
            ms if ms >= 0 => EventTime::from_millis(ms),
            _ => EventTime::MIN,
        };
        QueueItem::Record(Raw {
            offset,
            timestamp,
            key: bytes((*message).key, (*message).key_len),
            payload: bytes((*message).payload, (*message).len),
        })
    }
}

/// The headers of a message, in their order.
///
/// # Safety
/// `message` is alive, and a record.
unsafe fn headers(message: *const sys::rd_kafka_message_t) -> Vec<Header> {
    let (mut found, mut list) = (Vec::new(), ptr::null_mut());
    // SAFETY: the caller's. The list belongs to the message, and so do names, which end in zero, and values.
    unsafe {
        if (sys::rd_kafka_message_headers(message, &raw mut list) as i32) != 0 {
            return found;
        }
        for at in 0.. {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            let code = sys::rd_kafka_header_get_all(list, at, &raw mut name, &raw mut value, &raw mut len);
            if code as i32 != 0 {
                break;
            }
            let value = bytes(value, len).map(<[u8]>::to_vec);
            found.push(Header {
                name: text(name),
                value,
            });
        }
    }
    found
}

/// # Safety
/// `start` is null or points to `len` bytes that live for `'a`.
#[inline]
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast(), len) })
}

/// # Safety
/// `text` is null or ends in zero.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// How many events wait in the consumer's own queue.
pub(super) fn events_waiting(consumer: &Consumer) -> usize {
    // SAFETY: the client is alive; the handle on its queue is ours to destroy.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        if queue.is_null() {
            return 0;
        }
        let length = sys::rd_kafka_queue_length(queue);
        sys::rd_kafka_queue_destroy(queue);
        length
    }
}

/// Something of librdkafka's, with the function that frees it.
struct NativeHandle<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> NativeHandle<T> {
    /// `None` when librdkafka gave null. `free` must be the one that frees what `pointer` points to.
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        Some(Self(NonNull::new(pointer)?, free))
    }

    fn get(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for NativeHandle<T> {
    fn drop(&mut self) {
        // SAFETY: made together in `new`, freed once.
        unsafe { (self.1)(self.0.as_ptr()) }
    }
}

/// Asks `broker` for a topic's id: all zeros when it gives topics none. Waits up to `timeout`.
///
/// A broker is named as librdkafka would otherwise wait for the controller, which a mock cluster does not
/// have.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    topic: &str,
    timeout: Duration,
) -> Result<TopicId, PartitionFault> {
    let name = CString::new(topic).map_err(|_| PartitionFault::told("a topic's name has a zero byte"))?;
    let mut names = [name.as_ptr()];
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let event = answer(
        client,
        Some(broker),
        operation,
        timeout,
        |client, options, queue| {
            // SAFETY: all of it is alive, and librdkafka copies what it keeps.
            unsafe {
                let topics = NativeHandle::new(
                    sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
                    sys::rd_kafka_TopicCollection_destroy,
                )?;
                sys::rd_kafka_DescribeTopics(client, topics.get(), options, queue);
            }
            Some(())
        },
    )?;
    // SAFETY: the event is alive to the end of the function, and with it all that it lends.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event.get());
        let mut count = 0;
        let topics = match result.is_null() {
            true => ptr::null_mut(),
            false => sys::rd_kafka_DescribeTopics_result_topics(result, &mut count),
        };
        if count == 0 || topics.is_null() {
            return Err(PartitionFault::told("the answer names no topic"));
        }
        read_id(*topics)
    }
}

/// Asks `broker` for one of a topic's settings; `None` where it has none of that name. Waits up to `timeout`.
pub(super) fn topic_setting<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    topic: &str,
    setting: &str,
    timeout: Duration,
) -> Result<Option<String>, PartitionFault> {
    let name = CString::new(topic).map_err(|_| PartitionFault::told("a topic's name has a zero byte"))?;
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
    let event = answer(
        client,
        Some(broker),
        operation,
        timeout,
        |client, options, queue| {
            let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
            // SAFETY: all of it is alive, and librdkafka copies what it keeps.
            unsafe {
                let resource = NativeHandle::new(
                    sys::rd_kafka_ConfigResource_new(kind, name.as_ptr()),
                    sys::rd_kafka_ConfigResource_destroy,
                )?;
                let mut resources = [resource.get()];
                sys::rd_kafka_DescribeConfigs(
                    client,
                    resources.as_mut_ptr(),
                    resources.len(),
                    options,
                    queue,
                );
            }
            Some(())
        },
    )?;
    // SAFETY: the event is alive to the end of the function, and with it all that it lends.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConfigs_result(event.get());
        if result.is_null() {
            return Err(PartitionFault::told("the answer names no settings"));
        }
        let mut count = 0;
        let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        if count == 0 || resources.is_null() {
            return Err(PartitionFault::told("the answer names no topic"));
        }
        let resource = *resources;
        let code = sys::rd_kafka_ConfigResource_error(resource) as i32;
        if code != 0 {
            return Err(PartitionFault {
                code,
                offset: -1,
                text: text(sys::rd_kafka_ConfigResource_error_string(resource)),
            });
        }
        let entries = sys::rd_kafka_ConfigResource_configs(resource, &mut count);
        let entries = match entries.is_null() {
            true => &[],
            false => std::slice::from_raw_parts(entries, count),
        };
        let found = entries
            .iter()
            .find(|entry| text(sys::rd_kafka_ConfigEntry_name(**entry)) == setting);
        Ok(found.map(|entry| text(sys::rd_kafka_ConfigEntry_value(*entry))))
    }
}

/// An offset that partitions are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OffsetBound {
    /// The first that is still there.
    Start,
    /// Behind all that is decided: before the first record of the oldest open transaction.
    LastStable,
    /// Behind the last record.
    HighWatermark,
}

/// Asks for one offset of each of a topic's `partitions`, with one request a broker that leads some of them.
/// Waits up to `timeout`. Who leads them has to be known from a look at the topic just before.
///
/// # Errors
/// Those of the first partition that has no answer, too: all are known or none.
pub(super) fn offsets<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partitions: &[i32],
    bound: OffsetBound,
    timeout: Duration,
) -> Result<BTreeMap<i32, Offset>, PartitionFault> {
    use sys::rd_kafka_IsolationLevel_t::{
        RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED as COMMITTED,
        RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED as UNCOMMITTED,
    };
    use sys::rd_kafka_OffsetSpec_t::{RD_KAFKA_OFFSET_SPEC_EARLIEST, RD_KAFKA_OFFSET_SPEC_LATEST};
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (spec, isolation) = match bound {
        OffsetBound::Start => (RD_KAFKA_OFFSET_SPEC_EARLIEST, UNCOMMITTED),
        OffsetBound::LastStable => (RD_KAFKA_OFFSET_SPEC_LATEST, COMMITTED),
        OffsetBound::HighWatermark => (RD_KAFKA_OFFSET_SPEC_LATEST, UNCOMMITTED),
    };
    let name = CString::new(topic).map_err(|_| PartitionFault::told("a topic's name has a zero byte"))?;
    let count = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
    let event = answer(client, None, operation, timeout, |client, options, queue| {
        // SAFETY: all of it is alive, and librdkafka copies what it keeps. An error that comes back is ours
        // to destroy.
        unsafe {
            let list = NativeHandle::new(
                sys::rd_kafka_topic_partition_list_new(count),
                sys::rd_kafka_topic_partition_list_destroy,
            )?;
            for partition in partitions {
                let place = sys::rd_kafka_topic_partition_list_add(list.get(), name.as_ptr(), *partition);
                (*place).offset = spec as i64;
            }
            let refused = sys::rd_kafka_AdminOptions_set_isolation_level(options, isolation);
            if let Some(_refused) = NativeHandle::new(refused, sys::rd_kafka_error_destroy) {
                return None;
            }
            sys::rd_kafka_ListOffsets(client, list.get(), options, queue);
        }
        Some(())
    })?;
    // SAFETY: the event is alive to the end of the function, and with it all that it lends.
    let offsets = unsafe { read_offsets(&event)? };
    match partitions
        .iter()
        .find(|partition| !offsets.contains_key(partition))
    {
        Some(missing) => Err(PartitionFault {
            code: Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE as i32,
            ..PartitionFault::told(format!("partition {missing}: nobody leads it"))
        }),
        None => Ok(offsets),
    }
}

/// # Safety
/// The event is one that librdkafka made, and alive.
unsafe fn read_offsets(
    event: &NativeHandle<sys::rd_kafka_event_t>,
) -> Result<BTreeMap<i32, Offset>, PartitionFault> {
    // SAFETY: what the event lends lives as long as it does.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(event.get());
        if result.is_null() {
            return Err(PartitionFault::told("the answer names no offsets"));
        }
        let mut count = 0;
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
        let infos = match infos.is_null() {
            true => &[],
            false => std::slice::from_raw_parts(infos, count),
        };
        let mut offsets = BTreeMap::new();
        for info in infos {
            let place = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
            let (partition, offset) = ((*place).partition, (*place).offset);
            // Read as a number: brokers may send ones that the enum lacks.
            let code = (&raw const (*place).err).cast::<i32>().read();
            if code != 0 {
                let why = text(sys::rd_kafka_err2str((*place).err));
                return Err(PartitionFault {
                    code,
                    offset: -1,
                    text: format!("partition {partition}: {why}"),
                });
            }
            offsets.insert(partition, offset);
        }
        Ok(offsets)
    }
}

/// Makes a request, of `broker` if one is named, and waits for the event that answers it.
fn answer<C: ClientContext>(
    client: &Client<C>,
    broker: Option<i32>,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    ask: impl FnOnce(
        *mut sys::rd_kafka_t,
        *mut sys::rd_kafka_AdminOptions_t,
        *mut sys::rd_kafka_queue_t,
    ) -> Option<()>,
) -> Result<NativeHandle<sys::rd_kafka_event_t>, PartitionFault> {
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    let client = client.native_ptr();
    let refused = || PartitionFault::told("the request could not be made");
    // SAFETY: the client is alive, and what is made is freed by `NativeHandle`.
    unsafe {
        let queue = NativeHandle::new(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy)
            .ok_or_else(refused)?;
        let options = NativeHandle::new(
            sys::rd_kafka_AdminOptions_new(client, operation),
            sys::rd_kafka_AdminOptions_destroy,
        )
        .ok_or_else(refused)?;
        sys::rd_kafka_AdminOptions_set_request_timeout(options.get(), timeout_ms, ptr::null_mut(), 0);
        if let Some(broker) = broker {
            sys::rd_kafka_AdminOptions_set_broker(options.get(), broker, ptr::null_mut(), 0);
        }
        ask(client, options.get(), queue.get()).ok_or_else(refused)?;
        // A little more, so that the request's own time-out comes first and says what it waited for.
        let event = sys::rd_kafka_queue_poll(queue.get(), timeout_ms.saturating_add(500));
        let event = NativeHandle::new(event, sys::rd_kafka_event_destroy).ok_or_else(|| PartitionFault {
            code: Code::RD_KAFKA_RESP_ERR__TIMED_OUT as i32,
            offset: -1,
            text: "timed out".to_owned(),
        })?;
        match sys::rd_kafka_event_error(event.get()) as i32 {
            0 => Ok(event),
            code => Err(PartitionFault {
                code,
                offset: -1,
                text: text(sys::rd_kafka_event_error_string(event.get())),
            }),
        }
    }
}

/// # Safety
/// `topic` is alive.
unsafe fn read_id(topic: *const sys::rd_kafka_TopicDescription_t) -> Result<TopicId, PartitionFault> {
    // SAFETY: the caller's; what is lent lives as long as `topic`.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && sys::rd_kafka_error_code(error) as i32 != 0 {
            let (code, text) = (
                sys::rd_kafka_error_code(error) as i32,
                text(sys::rd_kafka_error_string(error)),
            );
            return Err(PartitionFault {
                code,
                offset: -1,
                text,
            });
        }
        let mut id = [0; 16];
        let uuid = sys::rd_kafka_TopicDescription_topic_id(topic);
        if !uuid.is_null() {
            id[..8].copy_from_slice(&sys::rd_kafka_Uuid_most_significant_bits(uuid).to_be_bytes());
            id[8..].copy_from_slice(&sys::rd_kafka_Uuid_least_significant_bits(uuid).to_be_bytes());
        }
        Ok(TopicId(id))
    }
}
