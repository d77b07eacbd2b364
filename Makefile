# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
BUILD ?= build
JOBS ?= $(shell nproc)
.DEFAULT_GOAL := help
.PHONY: help setup build demo test fuzz sanitize oracle clients soak streams peers bench clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

setup: ## install what building needs (Debian packages, one library from its source)
	@tools/setup.sh build

build: setup ## build the program: build/thimble
	@cmake -G Ninja -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTHIMBLE_TESTS=OFF > /dev/null
	@cmake --build $(BUILD) -j $(JOBS)

demo: build ## the main job on examples/helpdesk: fine-tune a small model, prove it, leave it ready to talk to
	@$(BUILD)/thimble pull smollm2-135m-instruct
	@$(BUILD)/thimble make examples/helpdesk

test: ## build and run all tests, fuzz targets a minute each included
	@tools/setup.sh test
	@cmake -G Ninja -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTHIMBLE_TESTS=ON > /dev/null
	@cmake --build $(BUILD) -j $(JOBS)
	@tools/fuzz.sh
	@ctest --test-dir $(BUILD) --output-on-failure

fuzz: ## fuzz every parser of foreign bytes for SECONDS=600 each
	@tools/setup.sh test
	@tools/fuzz.sh $(or $(SECONDS),600)

sanitize: ## the engine's tests under address and thread sanitizers, 10,000 requests queued and cancelled at random
	@tools/setup.sh test
	@tools/sanitize.sh

oracle: ## compare live with transformers, peft, tokenizers and jinja2 in a virtual environment
	@tools/setup.sh oracle
	@cmake -G Ninja -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTHIMBLE_TESTS=ON > /dev/null
	@cmake --build $(BUILD) -j $(JOBS)
	@$(BUILD)/thimble pull smollm2-135m-instruct
	@.venv/bin/python tests/oracle/run.py --build $(BUILD)

clients: build ## ask a server through the SDKs of OpenAI and Anthropic, 500 requests, and run examples/clients
	@tools/setup.sh clients
	@tests/clients/run.py --build $(BUILD)

soak: build ## mixed load on a server for MINUTES=60: nothing wrong or lost, memory flat, no file left open
	@$(BUILD)/thimble pull smollm2-135m-instruct
	@tests/soak/soak.py --thimble $(BUILD)/thimble --minutes $(or $(MINUTES),60)

streams: build ## 2,000 streams that are hardly read beside 16 active clients: all complete, in less than 100 MB
	@$(BUILD)/thimble pull smollm2-135m-instruct
	@tests/soak/streams.py --thimble $(BUILD)/thimble

peers: ## build llama.cpp and measure side by side with it and with PyTorch + PEFT (bench/peers)
	@tools/setup.sh oracle
	@bench/peers/run.sh

clean: ## remove what was built here
	rm -rf $(BUILD) build-fuzz build-address build-thread
