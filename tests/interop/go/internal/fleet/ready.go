package fleet

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const readyPause = 20 * time.Millisecond

// WhenConsuming calls ready once: at once for Redis, where tasks sent earlier just wait in their
// list, and as soon as the queue exists and has a consumer for RabbitMQ.
func WhenConsuming(options Options, ready func()) {
	if !options.IsAMQP() {
		ready()
		return
	}
	go func() {
		for !hasConsumer(options.Broker, options.WorkerQueue()) {
			time.Sleep(readyPause)
		}
		ready()
	}()
}

func hasConsumer(broker, name string) bool {
	connection, err := amqp.Dial(broker)
	if err != nil {
		return false
	}
	defer connection.Close()
	for {
		// A missing queue closes the channel, so each look opens its own.
		channel, err := connection.Channel()
		if err != nil {
			return false
		}
		queue, err := channel.QueueDeclarePassive(name, true, false, false, false, nil)
		if err == nil && queue.Consumers > 0 {
			return true
		}
		_ = channel.Close()
		time.Sleep(readyPause)
	}
}
